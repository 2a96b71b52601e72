"""confluent-kafka, on librdkafka."""
import exchange
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic


def create(args):
    admin = AdminClient({"bootstrap.servers": args["addr"]})
    for future in admin.create_topics([NewTopic(args["topic"], int(args["partitions"]), 1)]).values():
        future.result(30)


def produce(args):
    failures = []
    producer = Producer({
        "bootstrap.servers": args["addr"], "compression.type": args["codec"], "acks": args["acks"], "linger.ms": 20,
        "enable.idempotence": args["idempotent"] == "1", "message.max.bytes": 4_000_000,
        "topic.metadata.propagation.max.ms": 3000, "message.timeout.ms": 20_000,
    })

    def delivered(err, _):
        if err is not None:
            failures.append(err)

    for partition, timestamp, key, value, headers in exchange.load(args["file"]):
        more = {} if timestamp < 0 else {"timestamp": timestamp}
        producer.produce(args["topic"], partition=partition, key=key, value=value, headers=headers, on_delivery=delivered, **more)
        producer.poll(0)
    if producer.flush(30):
        raise TimeoutError("records are left in the queue")
    if failures:
        raise KafkaException(failures[0])


def consume(args):
    ends = exchange.wanted(args)
    # The library insists on a group id; partitions assigned by hand and no commits keep the group unused.
    consumer = Consumer({"bootstrap.servers": args["addr"], "group.id": "unused", "enable.auto.commit": False, "enable.partition.eof": False})
    consumer.assign([TopicPartition(args["topic"], p, 0) for p in ends])
    records = []
    while len(records) < sum(ends.values()):
        message = consumer.poll(30)
        if message is None:
            raise TimeoutError("read %d of %d records" % (len(records), sum(ends.values())))
        if message.error():
            raise KafkaException(message.error())
        records.append((message.partition(), message.offset(), message.timestamp()[1], message.key(), message.value(), message.headers()))
    consumer.close()
    exchange.save(args["file"], records)


exchange.serve({"create": create, "produce": produce, "consume": consume})
