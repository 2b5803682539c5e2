package dev.tidegate.bench;

import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Properties;
import java.util.SplittableRandom;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.locks.LockSupport;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/**
 * Writes at a steady rate and reads the output, in one process and by one clock.
 *
 * <p>A record carries the time at which it was <em>due</em>, not the time at which it could be sent, so a stalled
 * producer makes latencies longer and never hides them. Output records carry the timestamp of their input.
 */
public final class Latency {
  /** Silence after which no more output is expected although some is missing. */
  private static final long GIVE_UP_MS = 20_000;

  /** Silence after which no more output is expected when all of it is there: time for a duplicate to show. */
  private static final long DRAIN_MS = 1_000;

  private final Arguments options;
  private final int rate;
  private final long total;
  private final long startMs;
  private final AtomicLong sent = new AtomicLong();
  private final AtomicLong mostLateMs = new AtomicLong();

  private Latency(Arguments options, long startMs) {
    this.options = options;
    this.rate = (int) options.number("rate");
    this.total = rate * options.number("seconds");
    this.startMs = startMs;
  }

  public static void main(String[] arguments) throws InterruptedException {
    Arguments options = new Arguments(arguments);
    try (KafkaConsumer<byte[], byte[]> consumer = consumerAtEnd(options);
        KafkaProducer<byte[], byte[]> producer = Data.producer(options.text("bootstrap"), 1)) {
      producer.partitionsFor(options.text("input"));
      Latency latency = new Latency(options, System.currentTimeMillis() + 200);
      Thread writer = new Thread(() -> latency.write(producer), "writer");
      writer.start();
      System.out.println(latency.read(consumer));
      writer.join();
    }
  }

  private static KafkaConsumer<byte[], byte[]> consumerAtEnd(Arguments options) {
    Properties settings = new Properties();
    settings.put(ConsumerConfig.BOOTSTRAP_SERVERS_CONFIG, options.text("bootstrap"));
    settings.put(ConsumerConfig.KEY_DESERIALIZER_CLASS_CONFIG, ByteArrayDeserializer.class.getName());
    settings.put(ConsumerConfig.VALUE_DESERIALIZER_CLASS_CONFIG, ByteArrayDeserializer.class.getName());
    settings.put(ConsumerConfig.ISOLATION_LEVEL_CONFIG, "read_committed");
    KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(settings);
    List<TopicPartition> partitions = new ArrayList<>();
    String topic = options.text("output");
    consumer.partitionsFor(topic).forEach(info -> partitions.add(new TopicPartition(topic, info.partition())));
    consumer.assign(partitions);
    consumer.seekToEnd(partitions);
    partitions.forEach(consumer::position);
    return consumer;
  }

  private void write(KafkaProducer<byte[], byte[]> producer) {
    String topic = options.text("input");
    long distinct = options.number("distinct");
    SplittableRandom random = new SplittableRandom(7);
    long startNanos = System.nanoTime() + (startMs - System.currentTimeMillis()) * 1_000_000L;
    for (long i = 0; i < total; ) {
      long elapsed = System.nanoTime() - startNanos;
      long due = elapsed < 0 ? 0 : Math.min(total, elapsed * rate / 1_000_000_000L + 1);
      for (; i < due; i++) {
        long dueMs = startMs + i * 1000L / rate;
        producer.send(
            new ProducerRecord<>(topic, null, dueMs, Data.key(random.nextLong(distinct)), Data.value(i, random)));
        mostLateMs.accumulateAndGet(System.currentTimeMillis() - dueMs, Math::max);
      }
      sent.set(i);
      LockSupport.parkNanos(1_000_000L);
    }
    producer.flush();
  }

  /** Reads until all output has come, or none comes any more; answers a line of JSON. */
  private String read(KafkaConsumer<byte[], byte[]> consumer) {
    long measureFromMs = startMs + options.number("skip") * 1000;
    long endMs = startMs + total * 1000 / rate;
    int[] latencies = new int[(int) (total * 2)];
    int measured = 0;
    long received = 0;
    long lastMs = startMs;
    while (true) {
      for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(50))) {
        if (record.timestamp() < startMs) {
          continue;
        }
        lastMs = System.currentTimeMillis();
        received++;
        if (record.timestamp() >= measureFromMs && measured < latencies.length) {
          latencies[measured++] = (int) (lastMs - record.timestamp());
        }
      }
      long silenceMs = System.currentTimeMillis() - Math.max(lastMs, endMs);
      if (silenceMs > (received < total ? GIVE_UP_MS : DRAIN_MS)) {
        return result(Arrays.copyOf(latencies, measured), received);
      }
    }
  }

  private String result(int[] latencies, long received) {
    Arrays.sort(latencies);
    StringBuilder line = new StringBuilder("{\"event\":\"latency\"");
    line.append(",\"sent\":").append(sent.get());
    line.append(",\"received\":").append(received);
    line.append(",\"measured\":").append(latencies.length);
    line.append(",\"producer_late_max_ms\":").append(mostLateMs.get());
    String[] names = {"p50", "p90", "p99", "p999", "max"};
    double[] quantiles = {0.5, 0.9, 0.99, 0.999, 1};
    for (int i = 0; latencies.length > 0 && i < names.length; i++) {
      int index = Math.min(latencies.length - 1, (int) (latencies.length * quantiles[i]));
      line.append(",\"").append(names[i]).append("_ms\":").append(latencies[index]);
    }
    return line.append('}').toString();
  }
}
