"""Counts words: the topic ``lines`` in, ``word-counts`` out, one record per word occurrence.

Run it with: streamstate run topologies/word_count.py --bootstrap-servers localhost:9092
"""

from streamstate import Topology, serde

topology = Topology("word-count")

(
    topology.stream("lines", value=serde.string())
    .flat_map_values(str.split)
    .group_by(lambda key, word: word, key=serde.string(), value=serde.string())
    .count(store="word-counts")
    .to_stream()
    .map_values(str)
    .to("word-counts", value=serde.string())
)
