import java.io.BufferedReader;
import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.Paths;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Base64;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import org.apache.kafka.clients.admin.AdminClient;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeaders;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** The Java client, any version from 2.0 on. Obeys the runner's commands; see driver.go and dataset.go. */
public class Client {
    public static void main(String[] argv) throws Exception {
        // Loggers must not write among the answers.
        PrintStream answers = new PrintStream(new FileOutputStream(FileDescriptor.out), true, "UTF-8");
        System.setOut(System.err);
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line; (line = in.readLine()) != null; ) {
            String[] words = line.split("\t");
            Map<String, String> args = new HashMap<>();
            for (int i = 1; i < words.length; i++) {
                int eq = words[i].indexOf('=');
                args.put(words[i].substring(0, eq), words[i].substring(eq + 1));
            }
            try {
                switch (words[0]) {
                    case "create": create(args); break;
                    case "produce": produce(args); break;
                    case "consume": consume(args); break;
                    default: throw new IllegalArgumentException("unknown command " + words[0]);
                }
                answers.println("ok");
            } catch (Throwable e) {
                Throwable cause = e instanceof ExecutionException && e.getCause() != null ? e.getCause() : e;
                answers.println("error " + String.valueOf(cause).replace('\n', ' '));
            }
        }
        System.exit(0);
    }

    static void create(Map<String, String> args) throws Exception {
        Properties p = new Properties();
        p.put("bootstrap.servers", args.get("addr"));
        try (AdminClient admin = AdminClient.create(p)) {
            NewTopic topic = new NewTopic(args.get("topic"), Integer.parseInt(args.get("partitions")), (short) 1);
            admin.createTopics(Collections.singleton(topic)).all().get();
        }
    }

    static void produce(Map<String, String> args) throws Exception {
        Properties p = new Properties();
        p.put("bootstrap.servers", args.get("addr"));
        p.put("compression.type", args.get("codec"));
        p.put("acks", args.get("acks"));
        p.put("enable.idempotence", args.get("idempotent").equals("1") ? "true" : "false");
        p.put("linger.ms", "20");
        p.put("max.block.ms", "3000");
        p.put("max.request.size", "4000000");
        List<Future<?>> sent = new ArrayList<>();
        try (KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(p, new ByteArraySerializer(), new ByteArraySerializer())) {
            for (String line : Files.readAllLines(Paths.get(args.get("file")))) {
                String[] f = line.split("\t", -1);
                RecordHeaders headers = new RecordHeaders();
                for (String pair : f[5].split(",")) {
                    if (!pair.isEmpty()) {
                        String[] kv = pair.split(":", -1);
                        headers.add(new String(decode(kv[0]), StandardCharsets.UTF_8), decode(kv[1]));
                    }
                }
                Long timestamp = f[2].startsWith("-") ? null : Long.valueOf(f[2]);
                sent.add(producer.send(new ProducerRecord<>(
                    args.get("topic"), Integer.valueOf(f[0]), timestamp, decode(f[3]), decode(f[4]), headers)));
            }
            producer.flush();
            for (Future<?> f : sent) {
                f.get();
            }
        }
    }

    static void consume(Map<String, String> args) throws Exception {
        Properties p = new Properties();
        p.put("bootstrap.servers", args.get("addr"));
        p.put("enable.auto.commit", "false");
        List<TopicPartition> partitions = new ArrayList<>();
        long want = 0;
        String[] ends = args.get("ends").split(",");
        for (int i = 0; i < ends.length; i++) {
            if (Long.parseLong(ends[i]) > 0) {
                partitions.add(new TopicPartition(args.get("topic"), i));
                want += Long.parseLong(ends[i]);
            }
        }
        List<String> lines = new ArrayList<>();
        try (KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(p, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            long deadline = System.nanoTime() + 30_000_000_000L;
            while (lines.size() < want) {
                if (System.nanoTime() > deadline) {
                    throw new IllegalStateException("read " + lines.size() + " of " + want + " records");
                }
                for (ConsumerRecord<byte[], byte[]> r : consumer.poll(Duration.ofMillis(500))) {
                    StringBuilder headers = new StringBuilder();
                    for (Header h : r.headers()) {
                        headers.append(headers.length() == 0 ? "" : ",")
                            .append(encode(h.key().getBytes(StandardCharsets.UTF_8))).append(':').append(encode(h.value()));
                    }
                    lines.add(r.partition() + "\t" + r.offset() + "\t" + r.timestamp() + "\t" + encode(r.key()) + "\t" + encode(r.value()) + "\t" + headers);
                }
            }
        }
        Path file = Paths.get(args.get("file"));
        Files.write(file, lines);
    }

    static String encode(byte[] b) {
        return b == null ? "-" : Base64.getEncoder().encodeToString(b);
    }

    static byte[] decode(String s) {
        return s.equals("-") ? null : Base64.getDecoder().decode(s);
    }
}
