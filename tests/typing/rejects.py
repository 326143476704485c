"""Checked by mypy, never run: each marked line is an error of the marked kind, and no other line is."""

from streamstate import Processor, Topology, ValueProcessor, aggregates, serde


class Lengths(Processor[str, str, str, int]):
    pass


class Forwards(ValueProcessor[str, str, int]):
    def process(self, key: str, value: str) -> None:
        self.context.forward(key, 5)  # E: call-arg
        self.context.forward(value)  # E: arg-type


topology = Topology("t")
lines = topology.stream("lines", key=serde.string(), value=serde.string())
raw = topology.stream("raw")

lines.filter(lambda key, line: line.no_such_method())  # E: attr-defined
lines.filter(lambda line: True)  # E: arg-type
lines.map_values(lambda key, line, more: line)  # E: arg-type
lines.map_values(lambda key, line: key.no_such_method())  # E: arg-type
lines.map_values(lambda: 5)  # E: arg-type
lines.map(lambda key, line: line)  # E: arg-type
lines.map_values(len).map_values(lambda length: length.upper())  # E: attr-defined
lines.flat_map_values(lambda line: 5)  # E: arg-type
lines.map_async(len)  # E: arg-type
lines.merge(raw)  # E: arg-type
lines.to("out", value=serde.long())  # E: arg-type
lines.to(lambda key, line: 5)  # E: arg-type
lines.group_by(lambda key, line: len(line), key=serde.string())  # E: arg-type
lines.group_by_key().reduce(lambda longest, line: len(line))  # E: arg-type
lines.group_by_key().aggregate(initializer=lambda: 0, aggregator=lambda key, line, total: total)  # E: call-overload
lines.group_by_key().aggregate(n=len)  # E: call-overload
lines.group_by_key().aggregate(n=aggregates.count(), value=serde.long())  # E: call-overload
lines.group_by_key().count().to_stream(emit="sometimes")  # E: arg-type
lines.group_by_key().count().to_stream(emit="close")  # E: arg-type
lines.to_table(emit="commit")  # E: arg-type
lines.split(short=lambda line: True)  # E: arg-type
lines.split(lambda key, line: True, short=lambda key, line: True)  # E: call-overload
raw.process(Lengths)  # E: arg-type
raw.process_values(Forwards)  # E: arg-type
lines.process_values(Lengths)  # E: arg-type
topology.stream("other", reset="never")  # E: call-overload
topology.stream("other", on_error="retry")  # E: call-overload
topology.stream("other", timestamp=lambda key, value: value.upper())  # E: arg-type
