"""docs/solving.md says what its command prints."""

from solving import table_of_solves


def test_the_tables_of_the_page_are_the_commands(days):
    text = table_of_solves.PAGE.read_text()
    found = table_of_solves.tables(list(days.values()))
    blocks = dict(table_of_solves.BLOCK.findall(text))
    assert set(blocks) == set(found)
    for name, table in found.items():
        assert blocks[name].strip() == table, f"{name}: run table_of_solves.py --write"
