"""kafka-python, versions 2.0.2 and 3."""
import exchange
import kafka
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient, NewTopic


def create(args):
    admin = KafkaAdminClient(bootstrap_servers=args["addr"])
    admin.create_topics([NewTopic(args["topic"], int(args["partitions"]), 1)])
    admin.close()


def produce(args):
    more = {}
    if not kafka.__version__.startswith("2.0."):
        more["enable_idempotence"] = args["idempotent"] == "1"
    producer = KafkaProducer(
        bootstrap_servers=args["addr"], compression_type=None if args["codec"] == "none" else args["codec"],
        acks="all" if args["acks"] == "all" else int(args["acks"]), linger_ms=20, max_request_size=4_000_000,
        max_block_ms=3000, **more)
    futures = []
    try:
        for partition, timestamp, key, value, headers in exchange.load(args["file"]):
            futures.append(producer.send(
                args["topic"], partition=partition, key=key, value=value, headers=headers,
                timestamp_ms=None if timestamp < 0 else timestamp))
        producer.flush(30)
        for future in futures:
            future.get(10)
    finally:
        producer.close(10)


def consume(args):
    ends = exchange.wanted(args)
    consumer = KafkaConsumer(bootstrap_servers=args["addr"], group_id=None, consumer_timeout_ms=30_000)
    partitions = [TopicPartition(args["topic"], p) for p in ends]
    consumer.assign(partitions)
    consumer.seek_to_beginning(*partitions)
    records = []
    for r in consumer:
        records.append((r.partition, r.offset, r.timestamp, r.key, r.value, r.headers))
        if len(records) == sum(ends.values()):
            break
    consumer.close()
    exchange.save(args["file"], records)


exchange.serve({"create": create, "produce": produce, "consume": consume})
