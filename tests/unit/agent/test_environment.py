from agent.environment import environment
from atoll.api.v1 import objects_pb2
from tests.support.agent_core import assign, run


def test_a_run_knows_itself_and_cannot_be_told_otherwise() -> None:
    task = objects_pb2.Task(
        command=["x"],
        replicas=4,
        env=[objects_pb2.Label(key="COLOUR", value="blue"), objects_pb2.Label(key="ATOLL_TOKEN", value="forged")],
        ports=[objects_pb2.Port(name="http-api", number=8080)],
    )
    told = dict(environment(run(3), assign(3, term=5, task=task), "n1", "east"))
    assert told == {
        "COLOUR": "blue",
        "ATOLL_REGION": "east",
        "ATOLL_NODE": "n1",
        "ATOLL_TENANT": "acme",
        "ATOLL_WORKLOAD": "web",
        "ATOLL_TASK": "main",
        "ATOLL_INDEX": "0",
        "ATOLL_REPLICAS": "4",
        "ATOLL_SLOT": "acme/web/main/0",
        "ATOLL_ATTEMPT": "1.3",
        "ATOLL_TOKEN": "1.1.5.1.3",
        "ATOLL_GENERATION": "3",
        "ATOLL_PORT_HTTP_API": "8080",
    }


def test_a_run_with_an_address_of_its_own_is_told() -> None:
    told = dict(environment(run(3), assign(3), "n1", "east", "127.64.0.9", "127.64.0.9"))
    assert told["ATOLL_ADDRESS"] == told["ATOLL_REACHED_AT"] == "127.64.0.9"


def test_a_run_is_told_which_gpus_are_its_own() -> None:
    task = objects_pb2.Task(command=["train"], env=[objects_pb2.Label(key="NVIDIA_VISIBLE_DEVICES", value="all")])
    task.resources.requests.gpu_milli = 2_000
    given = assign(3, task=task)
    given.gpus.extend([1, 3])
    told = dict(environment(run(3), given, "n1", "east"))
    assert (told["ATOLL_GPUS"], told["ATOLL_GPU_MILLI"]) == ("1,3", "1000")
    assert told["NVIDIA_VISIBLE_DEVICES"] == told["CUDA_VISIBLE_DEVICES"] == "1,3"
    given.task.image = "cuda:12"
    assert "CUDA_VISIBLE_DEVICES" not in dict(environment(run(3), given, "n1", "east"))
