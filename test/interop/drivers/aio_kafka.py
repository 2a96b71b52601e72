"""aiokafka."""
import asyncio

import exchange
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic


async def create(args):
    admin = AIOKafkaAdminClient(bootstrap_servers=args["addr"])
    await admin.start()
    try:
        response = await admin.create_topics([NewTopic(args["topic"], int(args["partitions"]), 1)])
        for topic, code, *_ in response.topic_errors:
            if code != 0:
                raise RuntimeError("create %s: error code %d" % (topic, code))
    finally:
        await admin.close()


async def produce(args):
    producer = AIOKafkaProducer(
        bootstrap_servers=args["addr"], compression_type=None if args["codec"] == "none" else args["codec"],
        acks="all" if args["acks"] == "all" else int(args["acks"]), linger_ms=20, max_request_size=4_000_000,
        enable_idempotence=args["idempotent"] == "1", request_timeout_ms=5000)
    await producer.start()
    try:
        futures = []
        for partition, timestamp, key, value, headers in exchange.load(args["file"]):
            futures.append(await producer.send(
                args["topic"], partition=partition, key=key, value=value, headers=headers,
                timestamp_ms=None if timestamp < 0 else timestamp))
        await producer.flush()
        await asyncio.gather(*futures)
    finally:
        await producer.stop()


async def consume(args):
    ends = exchange.wanted(args)
    consumer = AIOKafkaConsumer(bootstrap_servers=args["addr"], group_id=None)
    await consumer.start()
    try:
        partitions = [TopicPartition(args["topic"], p) for p in ends]
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        records = []
        while len(records) < sum(ends.values()):
            r = await asyncio.wait_for(consumer.getone(), 30)
            records.append((r.partition, r.offset, r.timestamp, r.key, r.value, r.headers))
    finally:
        await consumer.stop()
    exchange.save(args["file"], records)


exchange.serve({
    name: lambda args, f=f: asyncio.run(f(args))
    for name, f in {"create": create, "produce": produce, "consume": consume}.items()
})
