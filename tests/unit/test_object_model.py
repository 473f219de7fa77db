"""The four rules of "one object model": documents are messages, values are frozen, and nothing depends on chance.

The fourth rule (a core never mutates what it is given) is checked by the fixtures of the core tests.
"""

import subprocess
import sys
from collections.abc import Iterator

import pytest
from google.protobuf import struct_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from atoll.api.v1 import agent_pb2, global_pb2, objects_pb2, regional_pb2
from atoll.store.memory import MemoryState
from atoll.store.store import Applied, Put, Txn

FILES = [objects_pb2, agent_pb2, regional_pb2, global_pb2]


def messages() -> Iterator[Descriptor]:
    for module in FILES:
        yield from module.DESCRIPTOR.message_types_by_name.values()


def is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def test_no_stored_or_visible_message_has_a_map() -> None:
    maps = [f"{m.full_name}.{f.name}" for m in messages() for f in m.fields if is_map(f)]
    assert maps == []


def test_the_rule_would_see_a_map() -> None:
    struct = struct_pb2.Struct.DESCRIPTOR
    assert [f.name for f in struct.fields if is_map(f)] == ["fields"]


def test_amounts_and_times_carry_their_unit_and_are_integers() -> None:
    units = ("_milli", "_mib", "_ms", "_s")
    wrong = [
        f"{m.full_name}.{f.name}"
        for m in messages()
        for f in m.fields
        if f.name.endswith(units) and f.type not in (FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_INT32)
    ]
    assert wrong == []


@pytest.mark.parametrize("hash_seed", ["0", "1", "4711"])
def test_serialization_is_the_same_in_every_process(hash_seed: str) -> None:
    program = (
        "from atoll.api.v1 import objects_pb2 as o;"
        "w = o.Workload(metadata=o.Metadata(name='a', tenant='t', labels=[o.Label(key=k, value='1') for k in 'zya']),"
        "spec=o.WorkloadSpec(tasks=[o.Task(name='main', replicas=3)]));"
        "print(w.SerializeToString(deterministic=True).hex())"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in (hash_seed, "99")
    }
    assert len(outputs) == 1


def test_the_memory_store_carries_bytes_so_aliasing_cannot_hide() -> None:
    state = MemoryState()
    node = objects_pb2.Node(metadata=objects_pb2.Metadata(name="n1"), incarnation=1)
    assert isinstance(state.transact(Txn(success=(Put(b"/r/eu/node/n1", node.SerializeToString()),))), Applied)
    node.incarnation = 2
    stored = state.get(b"/r/eu/node/n1")
    assert stored is not None
    assert objects_pb2.Node.FromString(stored.value).incarnation == 1
