"""The options of serving. Standard library only, so that `tgc --help` stays fast."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from tinygrad_chat.errors import ConfigError, UsageError
from tinygrad_chat.option import option, validate

KEY_VARIABLE = "TGC_API_KEY"


@dataclass(frozen=True, kw_only=True)
class ServingOptions:
    """Where a server listens, who may use it, and how much at a time."""

    host: str = option("127.0.0.1", "the address to listen on; any but this machine's own needs a key")
    port: int = option(8000, "the port to listen on; 0 takes a free one", minimum=0, maximum=65535)
    api_key: str | None = option(None, f"answer only who sends this key; better set {KEY_VARIABLE}, which no ps shows")
    rows: int = option(8, "answers that are written at the same time", minimum=1, maximum=1024)
    max_queue: int = option(256, "answers that may wait; more are refused", minimum=0, maximum=1 << 20)
    timeout: float = option(600.0, "seconds that an answer may take", above=0)
    allow_origin: str | tuple[str, ...] | None = option(
        None, "let pages of this origin ask, such as http://localhost:3000; several times for several", several=True
    )
    follow: bool = option(False, "take a newer checkpoint of the run at the next request")
    cache_mib: int | None = option(None, "most memory for what was read of texts, in MiB", minimum=1)

    def __post_init__(self) -> None:
        validate(self)
        if not self.is_local and not self.api_key:
            raise UsageError(
                f"--host {self.host}: others could ask, too; set a key they must know: --api-key KEY, or {KEY_VARIABLE}"
            )
        if self.api_key is not None and not (self.api_key.isascii() and self.api_key.isprintable() and self.api_key):
            raise ConfigError("--api-key: expected printable ASCII, as it is sent in a header, received something else")
        for origin in self.origins:
            if not origin.startswith(("http://", "https://")) or origin.count("/") != 2:
                raise ConfigError(
                    f"--allow-origin: expected an origin as http://localhost:3000, received {origin!r:.80}"
                )

    @property
    def is_local(self) -> bool:
        """Whether only programs on this machine can connect."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def origins(self) -> tuple[str, ...]:
        """The origins whose pages may call the server, in addition to its own."""
        if self.allow_origin is None:
            return ()
        return (self.allow_origin,) if isinstance(self.allow_origin, str) else tuple(self.allow_origin)
