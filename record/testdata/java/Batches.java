// Writes the batches of this folder with Apache Kafka's own classes:
//   java -cp "$(tools/kafka.sh 4.3.1)/*" record/testdata/java/Batches.java record/testdata/java

import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.Map;
import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.record.TimestampType;
import org.apache.kafka.common.record.internal.MemoryRecords;
import org.apache.kafka.common.record.internal.MemoryRecordsBuilder;
import org.apache.kafka.common.record.internal.RecordBatch;

class Batches {
    public static void main(String[] args) throws Exception {
        Map<String, Compression> codecs = new LinkedHashMap<>();
        codecs.put("gzip", Compression.gzip().build());
        codecs.put("snappy", Compression.snappy().build());
        codecs.put("lz4", Compression.lz4().build());
        codecs.put("zstd", Compression.zstd().build());
        codecs.put("zstd-22", Compression.zstd().level(22).build());
        for (Map.Entry<String, Compression> codec : codecs.entrySet()) {
            ByteBuffer buffer = ByteBuffer.allocate(1 << 20);
            MemoryRecordsBuilder builder = MemoryRecords.builder(buffer, RecordBatch.MAGIC_VALUE_V2, codec.getValue(),
                TimestampType.CREATE_TIME, 1000L);
            for (int i = 0; i < 150; i++) {
                // As the test expects it: times go up and down, every third key and every seventh value is null.
                byte[] key = i % 3 == 0 ? null : ("key-" + i).getBytes(StandardCharsets.UTF_8);
                byte[] value = i % 7 == 0 ? null : ("value-" + i + "-").repeat(100).getBytes(StandardCharsets.UTF_8);
                Header[] headers = new Header[i % 4];
                for (int h = 0; h < headers.length; h++)
                    headers[h] = new RecordHeader("h" + h, h == 2 ? null : ("x" + i).getBytes(StandardCharsets.UTF_8));
                builder.append(5000L + 10 * i - 25 * (i % 5), key, value, headers);
            }
            MemoryRecords records = builder.build();
            ByteBuffer bytes = records.buffer();
            byte[] out = new byte[bytes.remaining()];
            bytes.get(out);
            Files.write(Path.of(args[0], codec.getKey() + ".batch"), out);
        }
    }
}
