import com.fasterxml.jackson.databind.JsonNode;
import java.time.Duration;
import java.util.Properties;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.JoinWindows;
import org.apache.kafka.streams.kstream.Joined;
import org.apache.kafka.streams.kstream.KStream;
import org.apache.kafka.streams.kstream.KTable;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.StreamJoined;
import org.apache.kafka.streams.kstream.TimeWindows;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.WindowStore;

/** What each workload computes, in the DSL. */
final class Works {
    private static final Duration MINUTE = Duration.ofMinutes(1);
    private static final Duration GRACE = Duration.ofSeconds(30);
    private static final Duration JOIN = Duration.ofSeconds(1);

    private final Serde<String> text = Serdes.String();
    private final Serde<Json.Event> event = Json.of(Json.Event.class);
    private final StreamsBuilder builder = new StreamsBuilder();
    private final JsonNode inputs;
    private final String output;

    private Works(JsonNode job) {
        inputs = job.get("inputs");
        output = job.get("output").asText();
    }

    /** The settings take part, because they may allow the topology to be optimized. */
    static Topology topology(JsonNode job, Properties settings) {
        Works works = new Works(job);
        works.add(job.get("work").asText());
        return works.builder.build(settings);
    }

    private void add(String work) {
        switch (work) {
            case "map" -> map();
            case "count-update", "count-commit" -> count();
            case "tumbling-mean" -> mean();
            case "table-join" -> enrich();
            case "stream-join" -> pair();
            case "repartition" -> repartition();
            case "restore" -> keepFirst();
            default -> throw new IllegalArgumentException("unknown work: " + work);
        }
    }

    private KStream<String, Json.Event> events(String role) {
        return builder.stream(inputs.get(role).asText(), Consumed.with(text, event));
    }

    private void map() {
        events("events")
                .mapValues(value -> new Json.Mapped(value.id, value.amount * 2))
                .to(output, Produced.with(text, Json.of(Json.Mapped.class)));
    }

    private void count() {
        events("events")
                .groupByKey(Grouped.with(text, event))
                .count(Materialized.<String, Long, KeyValueStore<Bytes, byte[]>>as("counts").withKeySerde(text))
                .toStream()
                .to(output, Produced.with(text, Json.number()));
    }

    private void repartition() {
        events("events")
                .groupBy((key, value) -> value.group, Grouped.with("by-group", text, event))
                .count(Materialized.<String, Long, KeyValueStore<Bytes, byte[]>>as("counts").withKeySerde(text))
                .toStream()
                .to(output, Produced.with(text, Json.number()));
    }

    private void mean() {
        events("events")
                .groupByKey(Grouped.with(text, event))
                .windowedBy(TimeWindows.ofSizeAndGrace(MINUTE, GRACE))
                .aggregate(
                        Json.Sum::new,
                        (key, value, sum) -> sum.add(value.amount),
                        Materialized.<String, Json.Sum, WindowStore<Bytes, byte[]>>as("means")
                                .withKeySerde(text)
                                .withValueSerde(Json.sum()))
                .toStream()
                .map((window, sum) -> KeyValue.pair(
                        window.key(), new Json.Mean(window.window().start(), (double) sum.total / sum.count)))
                .to(output, Produced.with(text, Json.of(Json.Mean.class)));
    }

    private void enrich() {
        Serde<Json.Customer> customer = Json.of(Json.Customer.class);
        KTable<String, Json.Customer> customers = builder.table(
                inputs.get("table").asText(),
                Consumed.with(text, customer),
                Materialized.<String, Json.Customer, KeyValueStore<Bytes, byte[]>>as("customers")
                        .withKeySerde(text)
                        .withValueSerde(customer));
        events("events")
                .join(
                        customers,
                        (value, row) -> new Json.Enriched(value.id, value.amount, row.name),
                        Joined.with(text, event, customer))
                .to(output, Produced.with(text, Json.of(Json.Enriched.class)));
    }

    private void pair() {
        events("left")
                .join(
                        events("right"),
                        (left, right) -> new Json.Pair(left.id, right.id),
                        JoinWindows.ofTimeDifferenceAndGrace(JOIN, GRACE),
                        StreamJoined.with(text, event, event).withName("pairs").withStoreName("pairs"))
                .to(output, Produced.with(text, Json.of(Json.Pair.class)));
    }

    private void keepFirst() {
        builder.stream(inputs.get("events").asText(), Consumed.with(text, Serdes.ByteArray()))
                .groupByKey(Grouped.with(text, Serdes.ByteArray()))
                .reduce(
                        (first, newer) -> first,
                        Materialized.<String, byte[], KeyValueStore<Bytes, byte[]>>as("entries")
                                .withKeySerde(text)
                                .withValueSerde(Serdes.ByteArray()))
                .toStream()
                .to(output, Produced.with(text, Serdes.ByteArray()));
    }
}
