"""What the region is told of the node itself: whether anything new can be started there."""

from agent.core import commands, events
from tests.support.agent_core import World, assign, of


def told_unfit(done: list[commands.Command]) -> list[str]:
    return [c.message.status.unfit for c in of(done, commands.SendUp) if c.message.HasField("status")]


def test_a_disk_that_is_full_is_told_before_anything_is_to_be_written() -> None:
    world = World().boot()
    world.connect()
    world.sync()
    world.report()
    world.post(events.StorageTested("no space left"))
    assert told_unfit(world.wait(1_000)) == ["StorageFailed: no space left"]
    world.post(events.StorageTested("no space left"))
    assert told_unfit(world.wait(1_000)) == []
    hello = of(world.open(), commands.SendUp)[0].message.hello
    assert hello.unfit == "StorageFailed: no space left"
    world.connect()
    world.sync()
    assert told_unfit(world.wait(1_000)) == [], "said in the hello"
    world.post(events.StorageTested(""))
    assert told_unfit(world.wait(1_000)) == [""]


def test_a_failed_write_is_cured_by_a_write_only() -> None:
    world = World().boot()
    world.connect()
    world.sync()
    world.report()
    world.disk = False
    world.say(assign=assign())
    assert world.writing is not None
    world.post(events.CheckpointFailed(world.writing.version, "no space left"))
    world.writing = None
    world.post(events.StorageTested(""))
    assert told_unfit(world.wait(1_000)) == ["StorageFailed: no space left"]
    world.disk = True
    assert told_unfit(world.wait(5_000)) == [""]


def told_images(done: list[commands.Command]) -> list[list[str]]:
    """Of each report that speaks of images."""
    reports = [c.message.status for c in of(done, commands.SendUp) if c.message.HasField("status")]
    return [list(report.images.names) for report in reports if report.HasField("images")]


def test_images_are_told_when_they_change_and_in_every_hello() -> None:
    world = World().boot()
    world.connect()
    world.sync()
    world.report()
    world.post(events.ImagesHeld(("db:1", "web:2")))
    assert told_images(world.wait(1_000)) == [["db:1", "web:2"]]
    world.post(events.ImagesHeld(("db:1", "web:2")))
    world.post(events.StorageTested("no space left"))
    assert told_images(world.wait(1_000)) == []
    hello = of(world.open(), commands.SendUp)[0].message.hello
    assert list(hello.images.names) == ["db:1", "web:2"]
    world.connect()
    world.sync()
    assert told_images(world.wait(1_000)) == [], "said in the hello"
    world.post(events.ImagesHeld(()))
    assert told_images(world.wait(1_000)) == [[]]
