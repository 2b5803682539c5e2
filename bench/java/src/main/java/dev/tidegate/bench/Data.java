package dev.tidegate.bench;

import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.Properties;
import java.util.SplittableRandom;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** The records of the benchmark: 16-byte keys, 100-byte values. */
final class Data {
  static final int KEY_BYTES = 16;
  static final int VALUE_BYTES = 100;

  /** The part of a value that is the same in all records, so that a batch compresses to about 60 %, as real data does. */
  private static final byte[] CONSTANT =
      "{\"currency\":\"EUR\",\"channel\":\"web\",\"status\":\"ok\"}..".getBytes(StandardCharsets.US_ASCII);

  private static final byte[] HEX = "0123456789abcdef".getBytes(StandardCharsets.US_ASCII);
  private static final byte[] LETTERS =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+-".getBytes(StandardCharsets.US_ASCII);

  private Data() {}

  /** Sixteen hex digits of a bijective hash of {@code number}: different numbers give different keys. */
  static byte[] key(long number) {
    long hash = mix(number + 0x9e3779b97f4a7c15L);
    byte[] key = new byte[KEY_BYTES];
    for (int i = 0; i < KEY_BYTES; i++) {
      key[i] = HEX[(int) (hash >>> (60 - 4 * i)) & 15];
    }
    return key;
  }

  /** A sequence number, random letters, and a constant end. */
  static byte[] value(long sequence, SplittableRandom random) {
    byte[] value = new byte[VALUE_BYTES];
    int letters = VALUE_BYTES - CONSTANT.length;
    ByteBuffer.wrap(value).putLong(sequence);
    for (int i = Long.BYTES; i < letters; ) {
      long bits = random.nextLong();
      for (int j = 0; j < 10 && i < letters; j++, i++) {
        value[i] = LETTERS[(int) (bits >>> (6 * j)) & 63];
      }
    }
    System.arraycopy(CONSTANT, 0, value, letters, CONSTANT.length);
    return value;
  }

  static KafkaProducer<byte[], byte[]> producer(String bootstrap, int lingerMs) {
    Properties settings = new Properties();
    settings.put(ProducerConfig.BOOTSTRAP_SERVERS_CONFIG, bootstrap);
    settings.put(ProducerConfig.KEY_SERIALIZER_CLASS_CONFIG, ByteArraySerializer.class.getName());
    settings.put(ProducerConfig.VALUE_SERIALIZER_CLASS_CONFIG, ByteArraySerializer.class.getName());
    settings.put(ProducerConfig.COMPRESSION_TYPE_CONFIG, "lz4");
    settings.put(ProducerConfig.LINGER_MS_CONFIG, lingerMs);
    settings.put(ProducerConfig.BATCH_SIZE_CONFIG, 64 * 1024);
    settings.put(ProducerConfig.BUFFER_MEMORY_CONFIG, 64L * 1024 * 1024);
    return new KafkaProducer<>(settings);
  }

  private static long mix(long bits) {
    bits = (bits ^ (bits >>> 30)) * 0xbf58476d1ce4e5b9L;
    bits = (bits ^ (bits >>> 27)) * 0x94d049bb133111ebL;
    return bits ^ (bits >>> 31);
  }
}
