"""The official way in: ccxt's clients as they come, with nothing changed but the addresses."""

import re
from typing import Any

HOST = re.compile(r"^(https?|wss?)://[^/]+")


def pointed_at(client: Any, url: str) -> Any:
    """Every address of a ccxt client leads to `url`; paths stay as they are."""

    def moved(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: moved(each) for name, each in value.items()}
        found = HOST.match(str(value))
        if not found:
            return value
        base = url.replace("http", "ws", 1) if found[1].startswith("ws") else url
        return base + str(value)[found.end() :]

    client.urls["api"] = moved(client.urls["api"])
    return client


def credentials(name: str = "alice") -> dict[str, Any]:
    return {"apiKey": f"key-{name}", "secret": f"secret-{name}", "enableRateLimit": False}
