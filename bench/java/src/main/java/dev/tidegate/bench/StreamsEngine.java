package dev.tidegate.bench;

import java.time.Duration;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.KStream;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.state.KeyValueStore;

/** The baseline: the benchmark's workloads on Kafka Streams, by the engines' common command line (README.md). */
public final class StreamsEngine {
  private StreamsEngine() {}

  public static void main(String[] arguments) throws InterruptedException {
    Arguments options = new Arguments(arguments);
    Properties settings = settings(options);
    KafkaStreams streams = new KafkaStreams(topology(options).build(settings), settings);
    CountDownLatch closed = new CountDownLatch(1);
    streams.setStateListener((now, before) -> event("state", now.name()));
    streams.setUncaughtExceptionHandler(
        failure -> {
          failure.printStackTrace();
          event("error", String.valueOf(failure));
          return org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse
              .SHUTDOWN_CLIENT;
        });
    Runtime.getRuntime()
        .addShutdownHook(
            new Thread(
                () -> {
                  streams.close(Duration.ofSeconds(30));
                  closed.countDown();
                }));
    streams.start();
    closed.await();
  }

  private static Properties settings(Arguments options) {
    Properties settings = new Properties();
    settings.put(StreamsConfig.APPLICATION_ID_CONFIG, options.text("app-id"));
    settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, options.text("bootstrap"));
    settings.put(StreamsConfig.STATE_DIR_CONFIG, options.text("state-dir"));
    settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, options.text("threads"));
    boolean exactlyOnce = options.text("guarantee").equals("exactly_once");
    settings.put(
        StreamsConfig.PROCESSING_GUARANTEE_CONFIG,
        exactlyOnce ? StreamsConfig.EXACTLY_ONCE_V2 : StreamsConfig.AT_LEAST_ONCE);
    settings.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, options.text("commit-ms"));
    settings.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, options.text("cache-bytes"));
    if (options.has("session-timeout-ms")) {
      settings.put(
          StreamsConfig.consumerPrefix(ConsumerConfig.SESSION_TIMEOUT_MS_CONFIG), options.text("session-timeout-ms"));
    }
    settings.put(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest");
    return settings;
  }

  private static StreamsBuilder topology(Arguments options) {
    StreamsBuilder builder = new StreamsBuilder();
    Serde<byte[]> bytes = Serdes.ByteArray();
    String output = options.text("output");
    KStream<byte[], byte[]> input = builder.stream(options.text("input"), Consumed.with(bytes, bytes));
    switch (options.text("workload")) {
      case "count" ->
          input
              .groupByKey(Grouped.with(bytes, bytes))
              .count(
                  Materialized.<byte[], Long, KeyValueStore<Bytes, byte[]>>as("store")
                      .withKeySerde(bytes)
                      .withValueSerde(Serdes.Long()))
              .toStream()
              .to(output, Produced.with(bytes, Serdes.Long()));
      case "pass" -> input.mapValues(StreamsEngine::changed).to(output, Produced.with(bytes, bytes));
      default -> throw new IllegalArgumentException("workload " + options.text("workload") + " is unknown");
    }
    return builder;
  }

  /** The value with one bit changed, so that the record is really written anew. */
  private static byte[] changed(byte[] value) {
    byte[] changed = value.clone();
    changed[changed.length - 1] ^= 1;
    return changed;
  }

  private static void event(String name, String value) {
    String text = value.replace('"', '\'').replace('\n', ' ');
    System.out.println("{\"event\":\"" + name + "\",\"value\":\"" + text + "\"}");
    System.out.flush();
  }
}
