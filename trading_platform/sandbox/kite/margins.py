"""What positions block at the broker, by the platform's own margin table."""

from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

from trading_platform.markets.contract_note import segment_for
from trading_platform.markets.contracts import Contract, ContractBook
from trading_platform.markets.margins import Margin, margin_of
from trading_platform.sandbox.margin_ledger import MarginOf
from trading_platform.sandbox.orders import Side

IST = ZoneInfo("Asia/Kolkata")


def margin(contract: Contract, product: str, side: Side, quantity: Decimal, value: Decimal, time: int) -> Margin:
    """For a short option the strike stands for the underlying's price: what is blocked does not move with the market. The
    premium that its sale brought is credited, so it is taken off what is blocked, as Zerodha's funds page shows it."""
    day = datetime.fromtimestamp(time / 1_000, IST).date()
    underlying = quantity * contract.strike if contract.is_option else value
    found = margin_of(
        segment_for(contract, product), "buy" if side == "BUY" else "sell", value, day, underlying_value=underlying
    )
    return replace(found, premium=-value) if contract.is_option and side == "SELL" else found


def margins_by(book: ContractBook) -> MarginOf:
    """The margin function of a ledger over these contracts."""
    contracts = {contract.tradingsymbol: contract for contract in book}

    def blocked(symbol: str, product: str, side: Side, quantity: Decimal, value: Decimal, time: int) -> Decimal:
        return margin(contracts[symbol], product, side, quantity, value, time).total

    return blocked
