import pytest

from aime.errors import AimeError, expect_some_of


def test_named_ones_come_in_the_order_of_the_known_once_each() -> None:
    assert expect_some_of(["dynamic", "none", "dynamic"], ("none", "static", "dynamic"), "level") == ("none", "dynamic")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["statik"], "there is no level 'statik'; expected some of none, static: separate them by commas"),
        ([], "no level is named; expected some of none, static: separate them by commas"),
    ],
)
def test_unknown_names_and_none_are_refused(names: list[str], message: str) -> None:
    with pytest.raises(AimeError) as refused:
        expect_some_of(names, ("none", "static"), "level")
    assert str(refused.value) == message
