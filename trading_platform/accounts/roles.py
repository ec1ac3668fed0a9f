"""What a person may be on the platform."""

from typing import Literal, get_args

Role = Literal["trader", "compliance", "engineer", "admin"]
ROLES: tuple[Role, ...] = get_args(Role)


def known_role(text: str) -> Role:
    """The role of that name. Raises ValueError."""
    for role in ROLES:
        if role == text:
            return role
    raise ValueError(f"role {text!r} is not known; expected one of {', '.join(ROLES)}")
