"""The marts from dbt's own model files, without dbt, whose start and parsing would be most of these tests' time.

The files use Jinja, `ref`, `source` and the project's macros, no more. tests/dbt runs them by dbt itself.
"""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from sqlalchemy import text

from trading_platform.storage.analytics import export
from trading_platform.storage.databases import Database, Databases

PROJECT = Path(__file__).resolve().parents[2] / "dbt"
KINDS = {"staging": "view", "marts": "table"}


def build_marts(databases: Databases) -> None:
    """Export the books and create the views of `staging` and the tables of `marts`."""
    export(databases)
    models = {path.stem: path for kind in KINDS for path in (PROJECT / "models" / kind).glob("*.sql")}
    made: set[str] = set()
    with databases.engine(Database.ANALYTICS).begin() as connection:
        for kind in KINDS:
            connection.execute(text(f"create schema if not exists {kind}"))

        def ref(name: str) -> str:
            kind = models[name].parent.name
            if name not in made:
                made.add(name)
                connection.exec_driver_sql(f"create {KINDS[kind]} {kind}.{name} as {render(models[name], ref)}")
            return f"{kind}.{name}"

        for name in sorted(models):
            ref(name)


def render(model: Path, ref: Any) -> str:
    """A model's SQL; rendering it makes the models that it reads from."""
    environment = Environment(loader=FileSystemLoader(PROJECT), autoescape=False)
    environment.globals.update(
        ref=ref, source=lambda schema, table: f"{schema}.{table}", config=lambda **options: ""
    )  # fmt: skip
    for name in ("ist", "data_label", "masked"):
        macros = environment.get_template(f"macros/{name}.sql").module
        environment.globals.update({key: value for key, value in vars(macros).items() if not key.startswith("_")})
    return environment.get_template(str(model.relative_to(PROJECT))).render().replace("%", "%%")
