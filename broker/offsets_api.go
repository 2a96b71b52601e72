package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tierlog/tierlog/tiered"
	"github.com/tierlog/tierlog/wire"
)

// ListOffsets (key 2), versions 1 to 11: KIP-79, KIP-98 (isolation), KIP-320, KIP-734 (max timestamp), KIP-405
// (earliest local), KIP-1005 (latest tiered), KIP-1023 (earliest pending upload).

// Timestamps with a meaning of their own.
const (
	tsLatest          = -1
	tsEarliest        = -2
	tsMaxTimestamp    = -3
	tsEarliestLocal   = -4
	tsLatestTiered    = -5
	tsEarliestPending = -6
)

func (b *Broker) listOffsets(ctx context.Context, req *wire.Request, msg *kmsg.ListOffsetsRequest) (kmsg.Response, error) {
	resp := kmsg.NewPtrListOffsetsResponse()
	for i := range msg.Topics {
		rt := &msg.Topics[i]
		out := kmsg.NewListOffsetsResponseTopic()
		out.Topic = rt.Topic
		t := b.reg.byName(rt.Topic)
		for j := range rt.Partitions {
			rp := &rt.Partitions[j]
			po := kmsg.NewListOffsetsResponseTopicPartition()
			po.Partition, po.Timestamp, po.Offset, po.LeaderEpoch = rp.Partition, -1, -1, -1
			var p *tiered.Partition
			if t != nil {
				p = t.partition(rp.Partition)
			}
			err := error(kerr.UnknownTopicOrPartition)
			if p != nil {
				err = b.checkLeaderEpoch(p, rp.CurrentLeaderEpoch)
			}
			if err == nil {
				err = listOffset(ctx, p, rp.Timestamp, req.Version, &po)
			}
			po.ErrorCode = codeOf(err)
			out.Partitions = append(out.Partitions, po)
		}
		resp.Topics = append(resp.Topics, out)
	}
	return resp, nil
}

func listOffset(ctx context.Context, p *tiered.Partition, ts int64, version int16, po *kmsg.ListOffsetsResponseTopicPartition) error {
	o := p.Offsets()
	switch {
	case ts == tsLatest:
		po.Offset = o.HighWatermark
	case ts == tsEarliest:
		po.Offset = o.LogStart
	case ts == tsEarliestLocal && version >= 8:
		po.Offset = o.Tiered
	case ts == tsLatestTiered && version >= 9:
		if o.Tiered > o.LogStart {
			po.Offset = o.Tiered - 1
		}
		po.LeaderEpoch = p.EpochAt(po.Offset)
		return nil
	case ts == tsEarliestPending && version >= 11:
		po.Offset = o.Tiered
	case ts == tsMaxTimestamp && version >= 7:
		return timeOffset(ctx, p, po, p.MaxTimestampOffset)
	case ts < 0:
		return kerr.UnsupportedVersion
	default:
		return timeOffset(ctx, p, po, func(ctx context.Context) (int64, int64, error) { return p.OffsetForTime(ctx, ts) })
	}
	po.LeaderEpoch = p.EpochAt(po.Offset)
	if po.Offset == o.HighWatermark {
		po.LeaderEpoch = p.LeaderEpoch()
	}
	return nil
}

// timeOffset answers with what find returns: an offset and its timestamp, or -1 and -1.
func timeOffset(ctx context.Context, p *tiered.Partition, po *kmsg.ListOffsetsResponseTopicPartition, find func(context.Context) (int64, int64, error)) error {
	offset, ts, err := find(ctx)
	if err != nil {
		return stored(err)
	}
	po.Offset, po.Timestamp = offset, ts
	if offset >= 0 {
		po.LeaderEpoch = p.EpochAt(offset)
	}
	return nil
}

// OffsetForLeaderEpoch (key 23), versions 2 to 4: KIP-101, KIP-279, KIP-320.

func (b *Broker) offsetForLeaderEpoch(_ context.Context, _ *wire.Request, msg *kmsg.OffsetForLeaderEpochRequest) (kmsg.Response, error) {
	resp := kmsg.NewPtrOffsetForLeaderEpochResponse()
	for i := range msg.Topics {
		rt := &msg.Topics[i]
		out := kmsg.NewOffsetForLeaderEpochResponseTopic()
		out.Topic = rt.Topic
		t := b.reg.byName(rt.Topic)
		for j := range rt.Partitions {
			rp := &rt.Partitions[j]
			po := kmsg.NewOffsetForLeaderEpochResponseTopicPartition()
			po.Partition, po.LeaderEpoch, po.EndOffset = rp.Partition, -1, -1
			var p *tiered.Partition
			if t != nil {
				p = t.partition(rp.Partition)
			}
			if p == nil {
				po.ErrorCode = kerr.UnknownTopicOrPartition.Code
			} else if err := b.checkLeaderEpoch(p, rp.CurrentLeaderEpoch); err != nil {
				po.ErrorCode = codeOf(err)
			} else {
				po.LeaderEpoch, po.EndOffset = p.EpochEnd(rp.LeaderEpoch)
			}
			out.Partitions = append(out.Partitions, po)
		}
		resp.Topics = append(resp.Topics, out)
	}
	return resp, nil
}

// InitProducerId (key 22), versions 0 to 5: KIP-98, KIP-360 (an id that is given is renewed with a higher epoch).
// Transactional ids come with transactions.

func (b *Broker) initProducerID(ctx context.Context, req *wire.Request, msg *kmsg.InitProducerIDRequest) (kmsg.Response, error) {
	resp := kmsg.NewPtrInitProducerIDResponse()
	resp.ProducerID, resp.ProducerEpoch = -1, -1
	switch {
	case msg.TransactionalID != nil && *msg.TransactionalID == "":
		resp.ErrorCode = kerr.InvalidRequest.Code
	case msg.TransactionalID != nil:
		resp.ErrorCode = kerr.TransactionalIDAuthorizationFailed.Code
	default:
		// As in Kafka, an idempotent producer always gets a new id; it bumps its epoch by itself (KIP-360).
		id, err := b.cfg.Meta.NextProducerID(ctx)
		if err != nil {
			b.cfg.Logger.WarnContext(ctx, "no producer id", errAttr(err))
			resp.ErrorCode = kerr.CoordinatorLoadInProgress.Code
			return resp, nil
		}
		resp.ProducerID, resp.ProducerEpoch = id, 0
	}
	_ = req
	return resp, nil
}

// FindCoordinator (key 10), versions 0 to 6: KIP-699 (batches, from 4). There are no group or transaction coordinators
// in this version; clients that look for one are told to try again later.

func (b *Broker) findCoordinator(_ context.Context, req *wire.Request, msg *kmsg.FindCoordinatorRequest) (kmsg.Response, error) {
	resp := kmsg.NewPtrFindCoordinatorResponse()
	code := kerr.CoordinatorNotAvailable.Code
	text := "this version of tierlog has no group and no transaction coordinator: assign partitions explicitly"
	resp.NodeID, resp.Port = -1, -1
	if req.Version < 4 {
		resp.ErrorCode, resp.ErrorMessage = code, &text
		return resp, nil
	}
	for _, key := range msg.CoordinatorKeys {
		c := kmsg.NewFindCoordinatorResponseCoordinator()
		c.Key, c.NodeID, c.Port, c.ErrorCode, c.ErrorMessage = key, -1, -1, code, &text
		resp.Coordinators = append(resp.Coordinators, c)
	}
	return resp, nil
}
