package dev.tidegate.bench;

import java.util.SplittableRandom;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;

/** Fills the input topic of the throughput runs, as fast as it can. */
public final class Prefill {
  private Prefill() {}

  public static void main(String[] arguments) {
    Arguments options = new Arguments(arguments);
    String topic = options.text("topic");
    long records = options.number("records");
    long distinct = options.number("distinct");
    SplittableRandom random = new SplittableRandom(42);
    try (KafkaProducer<byte[], byte[]> producer = Data.producer(options.text("bootstrap"), 20)) {
      for (long i = 0; i < records; i++) {
        producer.send(new ProducerRecord<>(topic, Data.key(random.nextLong(distinct)), Data.value(i, random)));
      }
      producer.flush();
    }
  }
}
