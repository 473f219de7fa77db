"""Nodes: hello, welcome, heartbeat, silence, loss.

A session is welcomed only when the node's record is committed as READY with what the agent says of itself; Welcome is
followed by Sync with the whole truth for that node, so an agent that obeys it runs exactly what is bound to it.
Heartbeats stay in memory; they are acknowledged only while this leader has lately proved its term (T_l). Trusted labels
come from the certificate, never from the agent.
"""

import numpy as np

from atoll.api.v1 import agent_pb2, objects_pb2
from atoll.model import explain
from atoll.model.lifecycle import NODE, step
from atoll.model.names import TRUSTED
from regional.core import closing, liveness, releasing, transactions, welcome
from regional.core.claims import mistake_in_claims
from regional.core.commands import Announce, CloseSession, SendToNode
from regional.core.events import NodeHeartbeat, NodeHello, NodeSessionEnded, NodeStatus
from regional.core.node_table import Rows
from regional.core.records import NodeEntry
from regional.core.state import State, Turn
from regional.core.transactions import WriteNodes

_LONGEST_WORDS = 300
READY, LOST = objects_pb2.NODE_STATE_READY, objects_pb2.NODE_STATE_LOST


def hello(state: State, event: NodeHello, turn: Turn) -> None:
    authority = state.authority
    if event.term not in (0, authority.term):
        return  # said to an earlier reign: the agent has been asked again
    if reason := _banned(state, event):
        turn.do(CloseSession(event.session, reason))
        _announce(state, event.name, "NodeRefused", reason, turn)
        return
    if (event.hello.store_life, event.hello.highest_term) > (authority.store_life, authority.term):
        turn.do(CloseSession(event.session, "the node has obeyed a newer leader"))
        return
    if mistake := mistake_in_claims(event.hello):
        turn.do(CloseSession(event.session, mistake))
        _announce(state, event.name, "NodeRefused", mistake, turn)
        return
    node = state.node(event.name)
    if node.session not in (0, event.session):
        turn.do(CloseSession(node.session, "the node has opened another session"))
        del state.sessions[node.session]
    node.session, node.welcomed, node.hello = event.session, False, event
    state.sessions[event.session] = node
    state.set_ready(node, False)
    state.liveness.heard_ms[node.row] = turn.now_ms
    consider(state, node, turn)


def _banned(state: State, event: NodeHello) -> str:
    """Why this certificate is not good any more; empty when it is."""
    node, removed = state.nodes.get(event.name), state.removed.get(event.name)
    if node and node.record.destroyed:
        return "the node was declared destroyed"
    if removed and event.certificate_expires_ms <= removed[0].until_ms:
        return "the node was removed: join again with a token"
    return ""


def consider(state: State, node: NodeEntry, turn: Turn) -> None:
    """Welcomes a waiting session, or has the node's record written first."""
    if node.busy or not node.hello:
        return
    record = _described(state, node, node.hello, turn.now_ms)
    if node.mod_revision and record == node.record:
        node.next_record = None  # a loss not sent yet
        note_fitness(state, node, node.hello.hello.unfit, turn)
        state.table.set_images(node.row, node.hello.hello.images.names)
        welcome.welcome(state, node, node.hello, turn)
    else:
        node.next_record = record
        state.unsettled_nodes[node.name] = node


def _described(state: State, node: NodeEntry, event: NodeHello, now_ms: int) -> objects_pb2.Node:
    """The node's record as READY, from its certificate and its hello; what operators wrote stays."""
    before = node.record
    claimed = {label.key: label.value for label in event.hello.labels if not label.key.startswith(TRUSTED)}
    own = sorted({**claimed, **dict(event.trusted)}.items())
    stays_ready = before.state == READY and before.incarnation == event.hello.incarnation
    interval_ms = liveness.heartbeat_ms(state.settings, len(state.nodes))
    record = objects_pb2.Node(
        metadata=objects_pb2.Metadata(name=event.name, created_ms=before.metadata.created_ms or now_ms),
        incarnation=event.hello.incarnation,
        state=READY,
        pool=event.pool,
        capacity=event.hello.capacity,
        taints=before.taints,
        cordoned=before.cordoned,
        draining=before.draining,
        address=event.hello.address,
        drivers=event.hello.drivers,
        gpus=event.hello.gpus,
        state_since_ms=before.state_since_ms if stays_ready else now_ms,
        heartbeat_ms=interval_ms,
        fence_after_ms=_longest_fence_ms(state, before, event.hello, interval_ms),
        own_labels=[objects_pb2.Label(key=key, value=value) for key, value in own],
        operator_labels=before.operator_labels,
        drain=before.drain if before.HasField("drain") else None,
        requests=before.requests,
    )
    merge_labels(record)
    return record


def merge_labels(record: objects_pb2.Node) -> None:
    """The labels that placement goes by: what operators say wins over certificate and agent."""
    labels = {label.key: label.value for label in (*record.own_labels, *record.operator_labels)}
    del record.metadata.labels[:]
    record.metadata.labels.extend(objects_pb2.Label(key=key, value=labels[key]) for key in sorted(labels))


def _longest_fence_ms(state: State, before: objects_pb2.Node, hello: agent_pb2.Hello, interval_ms: int) -> int:
    """T_a that the agent may count by until it has our Welcome, and after it. One that has not obeyed us yet may still
    obey the Welcome of a leader before us, which is not longer than the record says."""
    obeyed_us = (hello.store_life, hello.highest_term) == (state.authority.store_life, state.authority.term)
    earlier_ms = 0 if obeyed_us else liveness.recorded_fence_ms(state.settings, before)
    return max(liveness.fence_ms(state.settings, interval_ms), hello.fence_after_ms, earlier_ms)


def heartbeat(state: State, event: NodeHeartbeat, turn: Turn) -> None:
    node = state.sessions.get(event.session)
    if node is None:
        return
    state.liveness.heard_ms[node.row] = turn.now_ms
    if not node.welcomed:
        return
    node.next_record = None  # a loss not sent yet: the node is heard again
    if node.record.state == LOST:
        turn.do(CloseSession(event.session, "the node was taken for lost: say hello again"))
        session_ended(state, NodeSessionEnded(event.session))
        return
    if turn.now_ms - state.applied_sent_ms <= state.settings.acknowledge_within_ms:
        state.liveness.acknowledged_ms[node.row] = turn.now_ms
        ack = agent_pb2.HeartbeatAck(seq=event.seq, term=state.authority.term)
        turn.do(SendToNode(event.session, agent_pb2.RegionMessage(ack=ack)))
    if not state.table.ready[node.row]:
        state.set_ready(node, True)


def status(state: State, event: NodeStatus, turn: Turn) -> None:
    node = state.sessions.get(event.session)
    if node is None or not node.welcomed:
        return  # a session's first word is its hello, and that has everything
    note_fitness(state, node, event.report.unfit, turn)
    if event.report.HasField("images"):
        state.table.set_images(node.row, event.report.images.names)
    unawaited = [a for a in event.report.attempts if not closing.attempt_reported(state, node, a, turn)]
    closing.settled(state, [(node.name, a.slot, a.attempt) for a in unawaited], turn)


def note_fitness(state: State, node: NodeEntry, words: str, turn: Turn) -> None:
    """Whether its agent can start anything new, as it said last. Memory only: every hello says it again."""
    words = words[:_LONGEST_WORDS]
    before = state.table.unfit_words.get(node.row, "")
    if words == before:
        return
    state.set_unfit(node, words)
    if words:
        _announce(state, node.name, "NodeUnfit", f"it gets no new work: {words}", turn)
    else:
        _announce(state, node.name, "NodeFit", "it can start new work again", turn)


def session_ended(state: State, event: NodeSessionEnded) -> None:
    """No new work for a node that cannot be told; its silence decides the rest."""
    node = state.sessions.pop(event.session, None)
    if node:
        node.session, node.welcomed, node.hello = 0, False, None
        state.set_ready(node, False)


def check(state: State, turn: Turn) -> None:
    """Suspects and loses the silent; moves exclusive work whose fence has surely passed."""
    settings, live, table = state.settings, state.liveness, state.table
    if turn.now_ms < live.calm_until_ms:
        return
    size = table.size
    suspects = live.longer_than(settings.suspect_after_heartbeats, turn.now_ms)[:size] & table.present[:size]
    for row in np.flatnonzero(suspects & table.ready[:size]).tolist():
        state.set_ready(state.nodes[table.names[row]], False)
        _announce(state, table.names[row], "NodeSuspect", "no heartbeat; it gets no new work", turn)
    silent = live.longer_than(settings.lost_after_heartbeats, turn.now_ms)[:size] & table.present[:size]
    if not silent.any():
        patience = np.where(table.ready, settings.suspect_after_heartbeats, settings.lost_after_heartbeats)
        live.calm_until_ms = live.next_silence_ms(patience)
        return
    live.calm_until_ms = 0
    _lose(state, np.flatnonzero(silent & ~live.lost[:size]), turn)
    for row in np.flatnonzero(silent).tolist():
        _release_fenced(state, state.nodes[table.names[row]], turn)


def _lose(state: State, rows: Rows, turn: Turn) -> None:
    if not len(rows):
        return
    zones = state.table.label_column(state.settings.zone_label)
    braked = state.liveness.braked(rows, state.settings, turn.now_ms, zones)
    for row in rows[~braked].tolist():
        node = state.nodes[state.table.names[row]]
        if node.busy or node.next_record or not node.mod_revision:
            continue
        record = objects_pb2.Node()
        record.CopyFrom(node.record)
        record.state, record.state_since_ms = LOST, turn.now_ms
        node.next_record = record
        state.unsettled_nodes[node.name] = node


def _release_fenced(state: State, node: NodeEntry, turn: Turn) -> None:
    """The fence is a certificate: T_s after the last acknowledged heartbeat nothing exclusive runs there any more. Nor
    will it again: the session ends, so no heartbeat is acknowledged before a Sync that lists the work no more."""
    acknowledged_ms = int(state.liveness.acknowledged_ms[node.row])
    fence_after_ms = int(state.liveness.fence_after_ms[node.row])
    for entry in node.slots.values():
        if not entry.busy and entry.key not in state.releases:
            stopped_ms = releasing.stops_itself_after_ms(state, entry, fence_after_ms)
            if stopped_ms is not None and turn.now_ms - acknowledged_ms > stopped_ms:
                state.releases[entry.key] = entry
                if node.session:
                    turn.do(CloseSession(node.session, "its fence has passed: say hello again"))
                    session_ended(state, NodeSessionEnded(node.session))


def next_nodes(state: State, lane: int, turn: Turn) -> WriteNodes | None:
    """Node records to be written, as many as one transaction takes."""
    records: list[tuple[NodeEntry, objects_pb2.Node]] = []
    while state.unsettled_nodes and len(records) < transactions.COMPARES:
        node = state.unsettled_nodes.pop(next(iter(state.unsettled_nodes)))
        record, node.next_record = node.next_record, None
        if record is None:
            continue
        step(NODE, node.record.state or NODE.start, record.state)
        node.busy = True
        records.append((node, record))
    return transactions.write_nodes(lane, records) if records else None


def nodes_committed(state: State, operation: WriteNodes, revision: int, turn: Turn) -> None:
    for node, record in operation.records:
        node.busy = False
        before = node.record.state
        state.put_node(node, record, revision)
        lost = record.state == LOST
        state.liveness.lost[node.row] = lost
        if lost:
            state.set_ready(node, False)
            state.lost[node.name] = node
            _announce(state, node.name, "NodeLost", f"bound to it: {explain.counted(len(node.slots), 'slot')}", turn)
        elif before != READY:
            state.lost.pop(node.name, None)
            _announce(state, node.name, "NodeReady", f"incarnation {record.incarnation}", turn)
        consider(state, node, turn)


def nodes_rejected(state: State, operation: WriteNodes, turn: Turn) -> None:
    """Decided anew: a hello that waits is considered again, silence by the next check."""
    for node, _ in operation.records:
        node.busy = False
        consider(state, node, turn)


def event(state: State, name: str, kind: str, message: str, turn: Turn) -> objects_pb2.Event:
    """Something that happened to a node, for people."""
    return objects_pb2.Event(at_ms=turn.now_ms, type=kind, object=f"node/{name}", message=message, region=state.region)


def _announce(state: State, name: str, kind: str, message: str, turn: Turn) -> None:
    turn.do(Announce(event(state, name, kind, message, turn)))
