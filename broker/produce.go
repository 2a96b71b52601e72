package broker

import (
	"context"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tierlog/tierlog/record"
	"github.com/tierlog/tierlog/tiered"
	"github.com/tierlog/tierlog/tiered/logid"
	"github.com/tierlog/tierlog/wire"
)

// Produce (key 0), versions 3 to 13: KIP-98 (idempotence), KIP-110 (zstd, from 7), KIP-467 (record errors), KIP-516 (topic ids, from 13).
// Versions 0 to 2 are advertised, since librdkafka takes their absence for a broker without any (KAFKA-18659), and
// answered with UNSUPPORTED_VERSION.

// produce appends every batch before it returns, so that the connection's next request can follow: five requests in
// flight need one flush, not five.
func (b *Broker) produce(_ context.Context, req *wire.Request, reply *wire.Reply) error {
	msg, err := parse(req, kmsg.NewPtrProduceRequest())
	if err != nil {
		return err
	}
	p := &production{b: b, req: msg, reply: reply}
	p.resp = kmsg.NewPtrProduceResponse()
	p.resp.Version = req.Version
	if msg.Acks < -1 || msg.Acks > 1 {
		p.refuse(kerr.InvalidRequiredAcks)
		return nil
	}
	if req.Version < 3 {
		p.refuse(kerr.UnsupportedVersion)
		return nil
	}
	if msg.TransactionID != nil {
		p.refuse(kerr.TransactionalIDAuthorizationFailed)
		return nil
	}
	reply.Pipeline()
	commit := tiered.NewCommit(p.finish)
	p.append(req, commit)
	if msg.TimeoutMillis > 0 && msg.Acks != 0 {
		reply.OnDeadline(time.Duration(msg.TimeoutMillis)*time.Millisecond, func() { p.finish(kerr.RequestTimedOut) })
	}
	commit.Seal()
	return nil
}

// production is one produce request on its way.
type production struct {
	b     *Broker
	req   *kmsg.ProduceRequest
	reply *wire.Reply

	mu     sync.Mutex // guards resp between a commit and a time-out
	resp   *kmsg.ProduceResponse
	errs   bool // a partition was refused
	closed bool
}

// append puts the request's batches into the engine.
func (p *production) append(req *wire.Request, commit *tiered.Commit) {
	acks := tiered.Acks(p.req.Acks)
	p.resp.Topics = make([]kmsg.ProduceResponseTopic, len(p.req.Topics))
	for i := range p.req.Topics {
		rt := &p.req.Topics[i]
		t, missing := p.b.produceTopic(rt, req.Version)
		out := &p.resp.Topics[i]
		out.Topic, out.TopicID = rt.Topic, rt.TopicID
		out.Partitions = make([]kmsg.ProduceResponseTopicPartition, len(rt.Partitions))
		for j := range rt.Partitions {
			rp := &rt.Partitions[j]
			po := &out.Partitions[j]
			po.Default()
			po.Partition, po.BaseOffset, po.LogAppendTime, po.LogStartOffset = rp.Partition, -1, -1, -1
			if t == nil {
				p.fail(po, missing)
				continue
			}
			part := t.partition(rp.Partition)
			if part == nil {
				p.fail(po, kerr.UnknownTopicOrPartition)
				continue
			}
			if !p.b.cfg.Serving() {
				p.fail(po, kerr.NotLeaderForPartition)
				continue
			}
			if b := record.Batch(rp.Records); req.Version < 7 && len(b) >= record.HeaderSize && b.Magic() == 2 && b.Codec() == record.Zstd {
				p.fail(po, kerr.UnsupportedCompressionType) // KIP-110: clients this old do not know it
				continue
			}
			a, err := part.Append(record.Batch(rp.Records), req.Buf, acks, commit)
			if err != nil {
				p.fail(po, err)
				continue
			}
			po.BaseOffset, po.LogAppendTime, po.LogStartOffset = a.BaseOffset, a.AppendTimeMs, a.LogStart
		}
	}
	if acks == tiered.AcksNone {
		if p.errs {
			// The client asked for no answer; closing the connection is how Kafka tells it that something went wrong.
			p.reply.Fail(kerr.UnknownServerError)
		} else {
			p.reply.SendNothing()
		}
	}
}

// produceTopic finds a topic of a request by name or, from version 13 on, by id.
func (b *Broker) produceTopic(rt *kmsg.ProduceRequestTopic, version int16) (*topic, error) {
	if version >= 13 {
		if t := b.reg.byID(logid.TopicID(rt.TopicID)); t != nil {
			return t, nil
		}
		return nil, kerr.UnknownTopicID
	}
	if t := b.reg.byName(rt.Topic); t != nil {
		return t, nil
	}
	return nil, kerr.UnknownTopicOrPartition
}

func (p *production) fail(po *kmsg.ProduceResponseTopicPartition, err error) {
	p.errs = true
	po.ErrorCode = codeOf(err)
	po.BaseOffset = -1
	if p.resp.Version >= 8 {
		msg := err.Error()
		po.ErrorMessage = &msg
	}
}

// finish answers the request. err is the commit's outcome, or RequestTimedOut: then batches that were appended may
// still become durable, as in Kafka.
func (p *production) finish(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.req.Acks == 0 {
		return
	}
	p.closed = true
	if err != nil {
		for i := range p.resp.Topics {
			for j := range p.resp.Topics[i].Partitions {
				if po := &p.resp.Topics[i].Partitions[j]; po.ErrorCode == 0 {
					p.fail(po, err)
				}
			}
		}
	}
	p.reply.Send(p.resp)
}

// refuse answers every partition with one error.
func (p *production) refuse(err *kerr.Error) {
	for i := range p.req.Topics {
		rt := &p.req.Topics[i]
		out := kmsg.NewProduceResponseTopic()
		out.Topic, out.TopicID = rt.Topic, rt.TopicID
		for j := range rt.Partitions {
			po := kmsg.NewProduceResponseTopicPartition()
			po.Partition, po.BaseOffset, po.LogAppendTime, po.LogStartOffset = rt.Partitions[j].Partition, -1, -1, -1
			po.ErrorCode = err.Code
			out.Partitions = append(out.Partitions, po)
		}
		p.resp.Topics = append(p.resp.Topics, out)
	}
	if p.req.Acks == 0 {
		p.reply.Fail(err)
		return
	}
	p.reply.Send(p.resp)
}
