"""Places go to lines in turn: a line that asks seldom does not wait behind one that floods."""

import asyncio
from collections.abc import Sequence

from gateway.turns import Turns, current_line


def served(waiting: Sequence[tuple[str, int, int]], places: int = 1) -> list[str]:
    """Let each (name, places, priority) wait while all places are taken; return the names in the order of service.

    The first word of a name is its line. Each gives its places back soon after it was served.
    """

    async def run() -> list[str]:
        turns = Turns(places)
        order: list[str] = []

        async def work(name: str, n: int, priority: int) -> None:
            current_line.set(name.split()[0])
            async with turns.turn(n, priority=priority):
                order.append(name)
                await asyncio.sleep(0)

        async with turns.turn(places):
            tasks = [asyncio.create_task(work(*each)) for each in waiting]
            await asyncio.sleep(0)
        await asyncio.gather(*tasks)
        return order

    return asyncio.run(asyncio.wait_for(run(), 10))


def test_one_line_is_served_in_the_order_of_its_requests() -> None:
    assert served([("a 1", 1, 0), ("a 2", 2, 0), ("a 3", 1, 0)], places=2) == ["a 1", "a 2", "a 3"]


def test_a_quiet_line_is_next_however_much_a_flood_has_waiting() -> None:
    assert served([("flood", 1, 0)] * 9 + [("quiet", 1, 0)]) == ["flood", "quiet", *["flood"] * 8]


def test_two_floods_and_a_quiet_line_alternate() -> None:
    waiting = [("a", 1, 0)] * 4 + [("b", 1, 0)] * 4 + [("quiet", 1, 0)] * 2
    order = served(waiting)
    assert [sorted(order[at : at + 3]) for at in (0, 3)] == [["a", "b", "quiet"]] * 2
    assert order[6:] == ["a", "b", "a", "b"]


def test_lines_share_by_images_not_by_requests() -> None:
    """A batch of 4 counts as 4: then the other line has 4 single ones."""
    order = served([("batches", 4, 0), ("batches", 4, 0), *[("single", 1, 0)] * 5], places=4)
    assert order == ["batches", "single", "single", "single", "single", "batches", "single"]


def test_inspections_go_before_fits_whatever_their_lines() -> None:
    waiting = [("fit", 1, 2), ("fit", 1, 2), ("a", 1, 1), ("fit", 1, 2), ("a", 1, 1), ("b", 1, 1)]
    assert served(waiting) == ["a", "b", "a", "fit", "fit", "fit"]


def test_a_line_that_comes_later_does_not_catch_up_on_what_it_did_not_ask_for() -> None:
    async def run() -> list[str]:
        turns, order = Turns(1), []

        async def work(line: str) -> None:
            current_line.set(line)
            async with turns.turn():
                order.append(line)
                if order == ["old"] * 4:
                    late.extend(asyncio.create_task(work("new")) for _ in range(4))
                await asyncio.sleep(0)
                await asyncio.sleep(0)

        late: list[asyncio.Task[None]] = []
        await asyncio.gather(*(work("old") for _ in range(8)))
        await asyncio.gather(*late)
        return order

    assert asyncio.run(run())[4:8] == ["new", "old", "new", "old"]


def test_more_than_there_are_places_is_served_alone_and_not_passed_by_others() -> None:
    assert served([("a", 1, 0), ("large", 5, 0), ("b", 1, 0), ("b", 1, 0)], places=2) == ["a", "large", "b", "b"]


def test_a_cancelled_waiter_does_not_block_the_others() -> None:
    async def run() -> list[str]:
        turns = Turns(1)
        order: list[str] = []

        async def work(name: str) -> None:
            async with turns.turn():
                order.append(name)

        async with turns.turn():
            tasks = [asyncio.create_task(work(name)) for name in "abc"]
            await asyncio.sleep(0)
            tasks[0].cancel()
        tasks[1].cancel()  # the place was handed to it, or to a, just before
        await asyncio.wait(tasks)
        async with turns.turn():
            order.append("after")
        return order

    assert asyncio.run(asyncio.wait_for(run(), 10)) == ["c", "after"]


def test_a_waiter_that_is_cancelled_while_a_place_is_given_back_ends_as_cancelled() -> None:
    async def run() -> bool:
        turns = Turns(1)
        async with turns.turn():
            waiting = asyncio.create_task(turns.take())
            await asyncio.sleep(0)
            waiting.cancel()
        await asyncio.wait({waiting})
        return waiting.cancelled()

    assert asyncio.run(run())


def test_what_waits_behind_a_waiter_that_leaves_is_served_where_it_fits() -> None:
    async def run() -> bool:
        turns = Turns(2)
        async with turns.turn():
            large = asyncio.create_task(turns.take(2))
            small = asyncio.create_task(turns.take(1))
            await asyncio.sleep(0)
            large.cancel()
            await asyncio.wait({small}, timeout=10)
            return small.done()

    assert asyncio.run(run())


def test_a_line_that_gives_up_and_asks_again_is_not_behind_for_what_it_did_not_get() -> None:
    """Otherwise a client that waits for less than a round of all lines would never be served."""

    async def run() -> list[str]:
        turns, order = Turns(1), []

        async def work(line: str) -> None:
            current_line.set(line)
            async with turns.turn():
                order.append(line)

        async with turns.turn():
            floods = [asyncio.create_task(work("flood")) for _ in range(3)]
            for _ in range(3):
                quiet = asyncio.create_task(work("quiet"))
                await asyncio.sleep(0)
                quiet.cancel()
                await asyncio.wait({quiet})
            quiet = asyncio.create_task(work("quiet"))
            await asyncio.sleep(0)
        await asyncio.wait({*floods, quiet})
        return order

    assert asyncio.run(asyncio.wait_for(run(), 10)) == ["flood", "quiet", "flood", "flood"]


def test_a_line_whose_clients_all_give_up_is_not_behind_for_what_none_of_them_got() -> None:
    async def run() -> list[str]:
        turns, order = Turns(1), []

        async def work(line: str, name: str) -> None:
            current_line.set(line)
            async with turns.turn():
                order.append(name)

        async with turns.turn():
            others = [asyncio.create_task(work("other", f"other {i}")) for i in range(3)]
            await asyncio.sleep(0)
            given_up = [asyncio.create_task(work("line", "given up")) for _ in range(9)]
            kept = asyncio.create_task(work("line", "kept"))
            await asyncio.sleep(0)
            for task in given_up:  # in the order of their requests, as when a switch in between is turned off
                task.cancel()
            await asyncio.wait(given_up)
            again = asyncio.create_task(work("line", "again"))
            await asyncio.sleep(0)
        await asyncio.wait({*others, kept, again})
        return order

    expected = ["other 0", "kept", "other 1", "again", "other 2"]
    assert asyncio.run(asyncio.wait_for(run(), 10)) == expected


def test_places_that_are_added_are_used() -> None:
    async def run() -> int:
        turns = Turns(1)
        async with turns.turn():
            turns.places = 3
            async with asyncio.timeout(10), turns.turn(2):
                return turns.places

    assert asyncio.run(run()) == 3
