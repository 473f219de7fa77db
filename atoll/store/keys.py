"""Every key of both logical stores, on one page.

`/g` belongs to the global plane, `/r/<region>` to that region's leader. No transaction touches both. Names in keys are
checked by `atoll.model.names` at the border, so no key can be forged with a `/`.
"""

from atoll.api.v1.objects_pb2 import Attempt, SlotId

GLOBAL = b"/g/"
REGIONS = b"/r/"


def region_root(region: str) -> bytes:
    return f"/r/{region}/".encode()


# ---- authority, the same under both roots (root = GLOBAL or region_root(r))


def store_life(root: bytes) -> bytes:
    return root + b"store_life"


def leader(root: bytes) -> bytes:
    return root + b"leader"


def lane(root: bytes, index: int) -> bytes:
    return root + b"lane/%d" % index


def lanes(root: bytes) -> bytes:
    return root + b"lane/"


# ---- the global plane


def tenant(tenant: str) -> bytes:
    return f"/g/tenant/{tenant}".encode()


def workload(tenant: str, name: str) -> bytes:
    return f"/g/workload/{tenant}/{name}".encode()


def workloads(tenant: str = "") -> bytes:
    return f"/g/workload/{tenant}/".encode() if tenant else b"/g/workload/"


def status(tenant: str, name: str) -> bytes:
    return f"/g/status/{tenant}/{name}".encode()


def budget(tenant: str) -> bytes:
    return f"/g/budget/{tenant}".encode()


def slice_(tenant: str, region: str) -> bytes:
    return f"/g/slice/{tenant}/{region}".encode()


def ack(region: str, tenant: str) -> bytes:
    return f"/g/ack/{region}/{tenant}".encode()


def region(name: str) -> bytes:
    return f"/g/region/{name}".encode()


def policy(number: int) -> bytes:
    return b"/g/policy/%d" % number


def policy_in_force() -> bytes:
    return b"/g/policy_in_force"


def share(region: str, tenant: str, name: str) -> bytes:
    return f"/g/share/{region}/{tenant}/{name}".encode()


def request(tenant: str, request_id: str) -> bytes:
    return f"/g/request/{tenant}/{request_id}".encode()


def notice(tenant: str, notice_id: str) -> bytes:
    return f"/g/notice/{tenant}/{notice_id}".encode()


def user_token(token_id: str) -> bytes:
    return f"/g/token/{token_id}".encode()


# ---- a region (root = region_root(r))


def heard_global(root: bytes) -> bytes:
    return root + b"global"


def region_slice(root: bytes, tenant: str) -> bytes:
    return root + f"slice/{tenant}".encode()


def used(root: bytes, tenant: str, lane_index: int) -> bytes:
    return root + f"used/{tenant}/{lane_index}".encode()


def node(root: bytes, name: str) -> bytes:
    return root + f"node/{name}".encode()


def removed_node(root: bytes, name: str) -> bytes:
    return root + f"removed/{name}".encode()


def region_workload(root: bytes, tenant: str, name: str) -> bytes:
    return root + f"workload/{tenant}/{name}".encode()


def task_slots(root: bytes, tenant: str, workload: str, task: str) -> bytes:
    return root + f"slot/{tenant}/{workload}/{task}/".encode()


def slot(root: bytes, slot: SlotId) -> bytes:
    return task_slots(root, slot.tenant, slot.workload, slot.task) + b"%d" % slot.index


def slots(root: bytes, tenant: str, workload: str) -> bytes:
    return root + f"slot/{tenant}/{workload}/".encode()


def gang(root: bytes, tenant: str, workload: str) -> bytes:
    return root + f"gang/{tenant}/{workload}".encode()


def zombie(root: bytes, node: str, slot: SlotId, attempt: Attempt) -> bytes:
    name = f"{slot.tenant}.{slot.workload}.{slot.task}.{slot.index}"
    return root + f"zombie/{node}/{name}/{attempt.term}.{attempt.n}".encode()


def join_token(root: bytes, token_id: str) -> bytes:
    return root + f"join/{token_id}".encode()
