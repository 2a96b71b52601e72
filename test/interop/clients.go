package main

import (
	"context"
	"path/filepath"
)

// program returns how to start a client's program.
func (e *env) program(argv ...string) func(context.Context) (driver, error) {
	return func(context.Context) (driver, error) {
		p, err := startProcess(e.dir, argv...)
		if err != nil {
			return nil, err
		}
		return p, nil
	}
}

// clients lists every client under test, with what it can express and what it says of errors.
func (e *env) clients() []client {
	installed := filepath.Join(e.root, ".bin", "interop")
	drivers := filepath.Join(e.root, "test", "interop", "drivers")
	python := func(venv, file string) func(context.Context) (driver, error) {
		return e.program(filepath.Join(installed, venv, "bin", "python"), "-u", filepath.Join(drivers, file))
	}
	goClient := func(args ...string) func(context.Context) (driver, error) {
		return e.program(append([]string{filepath.Join(installed, "goclients")}, args...)...)
	}
	java := func(version string) func(context.Context) (driver, error) {
		return e.program("java", "-Xmx256m", "-cp", filepath.Join(e.root, ".bin", "kafka-"+version, "libs", "*"), filepath.Join(drivers, "Client.java"))
	}
	old := []string{"none", "gzip", "snappy", "lz4"}
	all := []string{"none", "gzip", "snappy", "lz4", "zstd"}
	noNullHeaders := everything // some writers take only bytes
	noNullHeaders.nullHeaders = false
	headerMap := noNullHeaders // some keep headers in a map
	headerMap.manyHeaders = false
	noEmpty := everything // some readers show null for empty
	noEmpty.empty, noEmpty.emptyHeader = false, false
	clients := []client{
		{
			name: "franz-go", open: func(context.Context) (driver, error) { return e.ref, nil }, features: everything, codecs: all, idempotent: true,
			unknown: "UNKNOWN_TOPIC_OR_PARTITION", tooLarge: "MESSAGE_TOO_LARGE",
		},
		{
			name: "kcat", open: func(context.Context) (driver, error) { return newKcat(e.dir) }, features: features{headers: true, oneHeader: true}, codecs: all, idempotent: true, noAdmin: true,
			unknown: "Unknown topic or partition", tooLarge: "Message size too large",
		},
		{
			name: "confluent-kafka", open: python("confluent", "confluent.py"), features: everything, codecs: all, idempotent: true,
			unknown: "UNKNOWN_TOPIC|Unknown topic", tooLarge: "MSG_SIZE_TOO_LARGE",
		},
		{
			name: "kafka-python-3", open: python("kafka-python-3", "kafka_python.py"), features: noNullHeaders, reads: &everything, codecs: all, idempotent: true,
			unknown: "KafkaTimeoutError|UnknownTopic", tooLarge: "MessageSizeTooLarge|RecordTooLarge",
		},
		{
			name: "kafka-python-2", open: python("kafka-python-2", "kafka_python.py"), features: noNullHeaders, reads: &everything, codecs: all,
			unknown: "KafkaTimeoutError|UnknownTopic", tooLarge: "MessageSizeTooLarge|RecordTooLarge",
		},
		{
			name: "aiokafka", open: python("aiokafka", "aio_kafka.py"), features: everything, codecs: all, idempotent: true,
			unknown: "Timeout|UnknownTopic", tooLarge: "MessageSizeTooLarge",
		},
		{
			name: "kafkajs", open: e.program("node", filepath.Join(drivers, "kafkajs.js"), filepath.Join(installed, "kafkajs", "node_modules")), features: headerMap, codecs: old, idempotent: true,
			unknown: "UNKNOWN_TOPIC_OR_PARTITION|does not host this topic", tooLarge: "MESSAGE_TOO_LARGE|larger than the max",
		},
		{
			name: "sarama-1.0", open: goClient("sarama", "1.0.0"), features: everything, codecs: old, idempotent: true,
			unknown: "not part of this|does not exist", tooLarge: "too large",
		},
		{
			name: "sarama-2.1", open: goClient("sarama", "2.1.0"), features: everything, codecs: all, idempotent: true,
			unknown: "not part of this|does not exist", tooLarge: "too large",
		},
		{
			name: "sarama-4.1", open: goClient("sarama", "4.1.0"), features: everything, codecs: all, idempotent: true,
			unknown: "not part of this|does not exist", tooLarge: "too large",
		},
		{
			name: "kafka-go-writer", open: goClient("kafka-go-writer"), features: everything, reads: &noEmpty, codecs: all,
			unknown: "Unknown Topic Or Partition", tooLarge: "Message Size Too Large",
		},
		{
			name: "kafka-go-conn", open: goClient("kafka-go-conn"), features: everything, reads: &noEmpty, waits: true, codecs: all,
			unknown: "deadline exceeded", tooLarge: "Message Size Too Large",
		},
	}
	for _, version := range []string{"2.0.1", "2.8.2", "3.9.2", "4.3.1"} {
		c := client{
			name: "java-" + version, open: java(version), features: everything, codecs: all, idempotent: true,
			unknown: "TimeoutException|UnknownTopicOrPartition", tooLarge: "RecordTooLarge",
		}
		if version == "2.0.1" {
			c.codecs = old
		}
		clients = append(clients, c)
	}
	return clients
}
