"""The wire of orders against servers that do what servers do; and beside aiohttp, which speaks HTTP independently."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
import uvloop
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from trading_platform.venues import wire as wire_module
from trading_platform.venues.wire import BrokenAnswerError, Reply, Wire

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture(params=[asyncio.DefaultEventLoopPolicy, uvloop.EventLoopPolicy], ids=["asyncio", "uvloop"])
def event_loop_policy(request: pytest.FixtureRequest) -> object:
    """Engines run on uvloop, whose transports are its own."""
    return request.param()


@asynccontextmanager
async def server(talk: Talk, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    running = await asyncio.start_server(talk, "127.0.0.1", 0, ssl=tls)
    try:
        yield running.sockets[0].getsockname()[1]
    finally:
        running.close()


@asynccontextmanager
async def wire_to(port: int, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> AsyncIterator[Wire]:
    made = Wire(f"{'https' if tls else 'http'}://{host}:{port}/api/v3", tls or ssl.create_default_context(), 0.7)
    try:
        yield made
    finally:
        made.close()


async def request_of(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next((int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0)
    return head + await reader.readexactly(length)


async def ask(wire: Wire, method: str, target: str, headers: dict[str, str], body: str = "") -> Reply:
    return await wire.ask(wire.request(method, target, headers, body))


def answers(*parts: bytes) -> Talk:
    """Every request of every connection with these parts, a moment apart."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await request_of(reader)
            for part in parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0)

    return talk


@pytest.mark.parametrize(
    "parts",
    [
        (OK,),
        tuple(bytes([byte]) for byte in OK),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n", b"1\r\nk\r\n0\r\n\r\n"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", OK),
        (b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK,),
    ],
    ids=["whole", "byte by byte", "chunked", "continue", "early hints"],
)
async def test_an_answer_is_read_however_it_comes(parts: tuple[bytes, ...]) -> None:
    async with server(answers(*parts)) as port, wire_to(port) as wire:
        for _ in range(3):  # the connection is kept in order
            reply = await ask(wire, "POST", "/order", {}, "a=1")
            assert (reply.status, reply.body) == (200, b"ok")


async def test_what_arrives_is_what_was_asked_as_an_independent_server_reads_it() -> None:
    seen: list[tuple[str, str, str, str, str]] = []
    peers: set[object] = set()

    async def handle(request: web.Request) -> web.Response:
        peers.add(request.transport)
        seen.append((request.method, request.raw_path, request.host, request.headers["X-Key"], await request.text()))
        return web.json_response({"code": -1, "msg": "no"}, status=418, headers={"Retry-After": "7"})

    application = web.Application()
    application.router.add_route("*", "/api/v3/order", handle)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    async with wire_to(port) as wire:
        reply = await ask(wire, "POST", "/api/v3/order", {"X-Key": "k"}, "symbol=BTCUSDT&signature=ab")
        await ask(wire, "DELETE", "/api/v3/order?a=b%20c", {"X-Key": "k"})
    await runner.cleanup()
    host = f"127.0.0.1:{port}"
    assert seen == [
        ("POST", "/api/v3/order", host, "k", "symbol=BTCUSDT&signature=ab"),
        ("DELETE", "/api/v3/order?a=b%20c", host, "k", ""),
    ]
    assert len(peers) == 1  # one connection, kept
    assert (reply.status, reply.headers["retry-after"]) == (418, "7")
    assert reply.body == b'{"code": -1, "msg": "no"}'


async def test_requests_at_once_have_connections_of_their_own() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while request := await request_of(reader):
            await asyncio.sleep(0.02)
            body = request.rpartition(b"\r\n\r\n")[2]
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    async with server(talk) as port, wire_to(port) as wire:
        replies = await asyncio.gather(*(ask(wire, "POST", "/", {}, f"n={number}") for number in range(20)))
    assert [reply.body.decode() for reply in replies] == [f"n={number}" for number in range(20)]


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nok",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
    ],
)
async def test_an_answer_that_breaks_off_is_an_error_and_nothing_is_sent_again(answer: bytes) -> None:
    received = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.append(await request_of(reader))
        writer.write(answer)
        await writer.drain()
        writer.close()

    async with server(talk) as port, wire_to(port) as wire:
        with pytest.raises(BrokenAnswerError):
            await ask(wire, "POST", "/order", {}, "a=1")
        assert len(received) == 1


async def test_silence_ends_with_the_time_out_and_its_late_answer_is_nobodys() -> None:
    late = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await request_of(reader)
        if b"first" in request:
            await late.wait()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst")
        else:
            writer.write(OK)

    async with server(talk) as port, wire_to(port) as wire:
        with pytest.raises(TimeoutError):
            await ask(wire, "POST", "/first", {}, "a=1")
        late.set()
        assert (await ask(wire, "POST", "/second", {}, "a=1")).body == b"ok"


async def test_a_connection_that_the_server_has_closed_is_not_used_again() -> None:
    connections = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        await request_of(reader)
        writer.write(OK)
        await writer.drain()
        writer.close()

    async with server(talk) as port, wire_to(port) as wire:
        for _ in range(3):
            assert (await ask(wire, "POST", "/", {}, "a=1")).status == 200
            await asyncio.sleep(0.05)
    assert len(connections) == 3


async def test_one_that_was_idle_for_long_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    connections = []
    whole = answers(OK)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        await whole(reader, writer)

    async with server(talk) as port, wire_to(port) as wire:
        await ask(wire, "POST", "/", {}, "")
        await ask(wire, "POST", "/", {}, "")
        assert len(connections) == 1
        monkeypatch.setattr(wire_module, "KEEP_SECONDS", 0.0)
        await ask(wire, "POST", "/", {}, "")
    assert len(connections) == 2


async def test_an_endless_answer_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire_module, "LONGEST_ANSWER", 1_000)
    long = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"x" * 2_000
    async with server(answers(long)) as port, wire_to(port) as wire:
        with pytest.raises(BrokenAnswerError, match="longer than 1000 bytes"):
            await ask(wire, "POST", "/", {}, "")


@pytest.mark.parametrize("value", ["a\r\nX-Other: b", "a\nb", "k\u00e9y"])
async def test_no_header_can_end_a_line_and_errors_do_not_tell_it(value: str) -> None:
    async with server(answers(OK)) as port, wire_to(port) as wire:
        with pytest.raises(ValueError, match="X-Key cannot be sent") as told:
            await ask(wire, "POST", "/", {"X-Key": value}, "")
    assert value not in str(told.value)


@pytest.mark.parametrize("address", ["", "127.0.0.1:80", "ftp://127.0.0.1", "https://"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="no address of a server"):
        Wire(address, ssl.create_default_context(), 1.0)


async def test_tls_goes_to_the_server_of_that_name_alone(tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(certificate, key)
    trusting = ssl.create_default_context(cafile=str(certificate))
    async with server(answers(OK), served) as port:
        async with wire_to(port, trusting) as wire:
            replies: list[Reply] = [await ask(wire, "POST", "/", {}, "a=1") for _ in range(2)]
            assert [reply.body for reply in replies] == [b"ok", b"ok"]
        async with wire_to(port, trusting, host="localhost") as wire:
            with pytest.raises(ssl.SSLCertVerificationError):
                await ask(wire, "POST", "/", {}, "a=1")
        async with wire_to(port, ssl.create_default_context()) as wire:
            with pytest.raises(ssl.SSLCertVerificationError):
                await ask(wire, "POST", "/", {}, "a=1")


def self_signed(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 alone."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "an exchange")])
    today = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - timedelta(days=1)).not_valid_after(today + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    paths = folder / "certificate.pem", folder / "key.pem"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths
