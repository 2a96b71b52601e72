// kafkajs. Usage: node kafkajs.js NODE_MODULES
//
// Its consumer works only in a group. Until there are groups, records are read through the parts that the consumer is
// made of: the library's cluster, its connection to the leader, its Fetch request and its decoder.
'use strict'

const fs = require('fs')
const path = require('path')
const readline = require('readline')

const modules = path.resolve(process.argv[2])
const load = name => require(path.join(modules, name))
const { Kafka, CompressionTypes, CompressionCodecs, logLevel } = load('kafkajs')
const SnappyCodec = load('kafkajs-snappy')
const LZ4 = load('kafkajs-lz4')
CompressionCodecs[CompressionTypes.Snappy] = SnappyCodec
CompressionCodecs[CompressionTypes.LZ4] = new (LZ4.default || LZ4)().codec

const codecs = { none: CompressionTypes.None, gzip: CompressionTypes.GZIP, snappy: CompressionTypes.Snappy, lz4: CompressionTypes.LZ4 }
const encode = b => (b === null || b === undefined ? '-' : Buffer.from(b).toString('base64'))
const decode = s => (s === '-' ? null : Buffer.from(s, 'base64'))

function client(args) {
  return new Kafka({
    clientId: 'interop', brokers: [args.addr], logLevel: logLevel.ERROR, retry: { retries: 3, initialRetryTime: 100 },
    logCreator: () => ({ label, log }) => process.stderr.write(label + ' ' + JSON.stringify(log) + '\n'),
  })
}

async function create(args) {
  const admin = client(args).admin()
  await admin.connect()
  try {
    await admin.createTopics({ topics: [{ topic: args.topic, numPartitions: Number(args.partitions), replicationFactor: 1 }] })
  } finally {
    await admin.disconnect()
  }
}

// The header map has one entry for each name: several values are a list, and their order against others is lost.
function headerMap(text) {
  const headers = {}
  for (const pair of text.split(',').filter(Boolean)) {
    const [key, value] = pair.split(':')
    headers[decode(key).toString()] = decode(value)
  }
  return headers
}

async function produce(args) {
  const messages = fs.readFileSync(args.file, 'utf8').split('\n').filter(Boolean).map(line => {
    const [partition, , timestamp, key, value, headers] = line.split('\t')
    const message = { partition: Number(partition), key: decode(key), value: decode(value), headers: headerMap(headers) }
    if (Number(timestamp) >= 0) message.timestamp = timestamp
    return message
  })
  const producer = client(args).producer({ idempotent: args.idempotent === '1', maxInFlightRequests: args.idempotent === '1' ? 1 : null })
  await producer.connect()
  try {
    for (let i = 0; i < messages.length; i += 50) {
      await producer.send({
        topic: args.topic, acks: args.acks === 'all' ? -1 : Number(args.acks), compression: codecs[args.codec], messages: messages.slice(i, i + 50),
      })
    }
  } finally {
    await producer.disconnect()
  }
}

async function consume(args) {
  const kafka = client(args)
  const createCluster = Object.getOwnPropertySymbols(kafka).find(s => /createCluster/i.test(String(s)))
  const cluster = kafka[createCluster]({ allowAutoTopicCreation: false })
  await cluster.connect()
  const lines = []
  try {
    await cluster.addTargetTopic(args.topic)
    for (const [p, text] of args.ends.split(',').entries()) {
      const end = Number(text)
      for (let offset = 0; offset < end; ) {
        const [leader] = Object.keys(cluster.findLeaderForPartitions(args.topic, [p]))
        const broker = await cluster.findBroker({ nodeId: leader })
        const { responses } = await broker.fetch({
          replicaId: -1, maxWaitTime: 500, minBytes: 1, maxBytes: 10485760, isolationLevel: 1,
          topics: [{ topic: args.topic, partitions: [{ partition: p, fetchOffset: String(offset), maxBytes: 1048576 }] }],
        })
        for (const m of responses[0].partitions[0].messages.filter(m => Number(m.offset) >= offset && Number(m.offset) < end)) {
          const headers = Object.entries(m.headers || {}).map(([k, v]) => encode(Buffer.from(k)) + ':' + encode(v)).join(',')
          lines.push([p, m.offset, m.timestamp, encode(m.key), encode(m.value), headers].join('\t') + '\n')
          offset = Number(m.offset) + 1
        }
      }
    }
  } finally {
    await cluster.disconnect()
  }
  fs.writeFileSync(args.file, lines.join(''))
}

const operations = { create, produce, consume }

async function main() {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const [operation, ...words] = line.split('\t')
    const args = Object.fromEntries(words.map(w => [w.slice(0, w.indexOf('=')), w.slice(w.indexOf('=') + 1)]))
    let answer = 'ok'
    try {
      await operations[operation](args)
    } catch (e) {
      answer = ('error ' + e.name + ': ' + (e.type || '') + ' ' + e.message).replace(/\n/g, ' ')
    }
    process.stdout.write(answer + '\n')
  }
  process.exit(0) // connections that time out later must not hold the process
}

main()
