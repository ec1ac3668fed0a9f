"""A step's intents, marks and audit entries by one call of the database

Revision: 0003
Revises: 0002
"""

from alembic import context, op

revision = '0003'
down_revision = '0002'
branch_labels = None
depends_on = None

COLUMNS = """
    user_id, intent_id, decision_key, client_order_id, account_id, dataset_id, strategy_id, version_id, arm, signal_id,
    purpose, entry_intent_id, symbol, contract, side, order_type, quantity, reference_price, target_price, stop_price,
    exit_by, market_time, state, denial, epoch, trace_id
"""


def upgrade() -> None:
    """A function keeps its plans with the server's session, which prepared statements behind a pooler would lose.

    Returns the ids of the intents that were not there before, and null where the lease is another's by now. Whoever
    takes the lease waits for it, since it shares the row's key until its own transaction is over.
    """
    schema = context.config.attributes['schema']
    op.execute(f"""
        create function "{schema}".write_step(
            of_group text, lease_holder text, lease_epoch bigint, of_dataset text, to_seq bigint, at timestamptz,
            issued_at timestamptz, sent_at_market timestamptz, decided json
        ) returns text[] language plpgsql as $$
        declare
            result text[];
        begin
            perform 1 from "{schema}".engine_lease
            where group_id = of_group and holder = lease_holder and epoch = lease_epoch and expires_at > now()
            for key share;
            if not found then
                return null;
            end if;

            if of_dataset is not null then
                insert into "{schema}".signal_cursors as cursor (dataset_id, seq, market_time)
                values (of_dataset, to_seq, at)
                on conflict (dataset_id) do update set seq = excluded.seq, market_time = excluded.market_time;
            end if;

            with given as materialized (
                select * from json_to_recordset(decided) as row (
                    user_id text, intent_id text, decision_key text, client_order_id text, account_id text,
                    dataset_id text, strategy_id text, version_id text, arm text, signal_id text, purpose text,
                    entry_intent_id text, symbol text, contract text, side text, order_type text, quantity numeric,
                    reference_price numeric, target_price numeric, stop_price numeric, exit_by timestamptz,
                    market_time timestamptz, state text, denial text, epoch bigint, trace_id text,
                    exchange text, source_ip text, clock_offset_ms float8, detail jsonb, events text[]
                )
            ), written as (
                insert into "{schema}".intents ({COLUMNS})
                select {COLUMNS} from given
                on conflict do nothing returning intent_id as id
            ), new as materialized (
                select given.* from given join written on written.id = given.intent_id
            ), marked as (
                insert into "{schema}".outbox (
                    intent_id, user_id, account_id, state, epoch, sent_at, market_sent_at
                )
                select intent_id, user_id, account_id, 'SENDING', epoch, issued_at, sent_at_market
                from new where denial is null
            ), ordered as (
                insert into "{schema}".orders (
                    user_id, client_order_id, intent_id, account_id, symbol, contract, side, order_type, quantity,
                    state, market_time, sent_at, epoch
                )
                select user_id, client_order_id, intent_id, account_id, symbol, contract, side, order_type, quantity,
                    'SUBMITTED', market_time, issued_at, epoch
                from new where denial is null
            ), told as (
                insert into "{schema}".audit_log (
                    event_type, user_id, account_id, dataset_id, strategy_id, strategy_version, intent_id, attempt,
                    actor, client_order_id, exchange, source_ip, clock_offset_ms, symbol, side, quantity,
                    order_type_sent, market_time, trace_id, price, status_message, detail
                )
                select event, user_id, account_id, dataset_id, strategy_id, version_id, intent_id, 0,
                    'engine', client_order_id, exchange, source_ip, clock_offset_ms, contract, side, quantity,
                    order_type, market_time, trace_id,
                    case when event = 'PLAN' then reference_price end,
                    case when event = 'RISK_BLOCK' then denial end,
                    case when event = 'PLAN' then detail else '{{}}' end
                from new cross join lateral unnest(events) with ordinality as entry (event, place)
                order by intent_id, place
            )
            select coalesce(array_agg(id), '{{}}') into result from written;
            return result;
        end $$
    """)


def downgrade() -> None:
    schema = context.config.attributes['schema']
    op.execute(f"""
        drop function "{schema}".write_step(
            text, text, bigint, text, bigint, timestamptz, timestamptz, timestamptz, json
        )
    """)
