package broker_test

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// TestEveryAdvertisedVersion sends an empty request of every version that is advertised: each gets a response that
// decodes to its last byte.
func TestEveryAdvertisedVersion(t *testing.T) {
	n := startNode(t, nil)
	list := ask[*kmsg.ApiVersionsResponse](n.conn(), 3, namedClient())
	if len(list.ApiKeys) < 15 {
		t.Fatalf("only %d keys are advertised", len(list.ApiKeys))
	}
	for _, k := range list.ApiKeys {
		for v := k.MinVersion; v <= k.MaxVersion; v++ {
			req := kmsg.RequestForKey(k.ApiKey)
			if req == nil {
				t.Fatalf("key %d is advertised and unknown", k.ApiKey)
			}
			if r, ok := req.(interface{ Default() }); ok {
				r.Default()
			}
			switch r := req.(type) {
			case *kmsg.ApiVersionsRequest:
				req = namedClient()
			case *kmsg.ProduceRequest:
				r.Acks = 1
			}
			req.SetVersion(v)
			c := n.conn()
			if _, err := c.receive(req, c.send(req)); err != nil {
				t.Errorf("%s version %d: %v", kmsg.NameForKey(k.ApiKey), v, err)
			}
			_ = c.nc.Close()
		}
	}
}

// TestEveryAdvertisedVersionWithContent does the same with requests that name a topic with records.
func TestEveryAdvertisedVersionWithContent(t *testing.T) {
	n := startNode(t, nil)
	c := n.conn()
	id := c.createTopic("t", 1)
	c.mustProduce(newBatch("a", "b"))
	topic := "t"
	requests := map[int16]func() kmsg.Request{
		0: func() kmsg.Request {
			req := produceRequest("t", -1, newBatch("x").encode())
			req.Topics[0].TopicID = id
			return req
		},
		1: func() kmsg.Request {
			req := fetchRequest("t", 0)
			req.Topics[0].TopicID = id
			return req
		},
		2: func() kmsg.Request { return listRequest("t", -1) },
		3: func() kmsg.Request {
			req := kmsg.NewPtrMetadataRequest()
			rt := kmsg.NewMetadataRequestTopic()
			rt.Topic = &topic
			req.Topics = append(req.Topics, rt)
			return req
		},
		10: func() kmsg.Request {
			req := kmsg.NewPtrFindCoordinatorRequest()
			req.CoordinatorKey, req.CoordinatorKeys = "g", []string{"g"}
			return req
		},
		23: func() kmsg.Request { return epochRequest("t", -1, 0) },
		32: func() kmsg.Request {
			req := kmsg.NewPtrDescribeConfigsRequest()
			r := kmsg.NewDescribeConfigsRequestResource()
			r.ResourceType, r.ResourceName = kmsg.ConfigResourceTypeTopic, "t"
			req.Resources, req.IncludeSynonyms, req.IncludeDocumentation = append(req.Resources, r), true, true
			return req
		},
		75: func() kmsg.Request {
			req := kmsg.NewPtrDescribeTopicPartitionsRequest()
			req.Topics = append(req.Topics, kmsg.DescribeTopicPartitionsRequestTopic{Topic: "t"})
			return req
		},
	}
	for _, k := range ask[*kmsg.ApiVersionsResponse](c, 3, namedClient()).ApiKeys {
		make := requests[k.ApiKey]
		if make == nil {
			continue
		}
		for v := k.MinVersion; v <= k.MaxVersion; v++ {
			req := make()
			req.SetVersion(v)
			resp, err := c.receive(req, c.send(req))
			if err != nil {
				t.Fatalf("%s version %d: %v", kmsg.NameForKey(k.ApiKey), v, err)
			}
			checkContent(t, v, resp)
		}
	}
}

// checkContent looks for the answer's point.
func checkContent(t *testing.T, v int16, resp kmsg.Response) {
	t.Helper()
	what := kmsg.NameForKey(resp.Key())
	switch r := resp.(type) {
	case *kmsg.ProduceResponse:
		want := (*kerr.Error)(nil)
		if v < 3 {
			want = kerr.UnsupportedVersion // advertised for librdkafka only
		}
		wantCode(t, what, r.Topics[0].Partitions[0].ErrorCode, want)
	case *kmsg.FetchResponse:
		if b := batches(t, one(t, r).RecordBatches); len(b) == 0 || b[0].NumRecords != 2 {
			t.Errorf("fetch version %d: %d batches", v, len(b))
		}
	case *kmsg.ListOffsetsResponse:
		if p := r.Topics[0].Partitions[0]; p.ErrorCode != 0 || p.Offset < 2 {
			t.Errorf("list offsets version %d: %+v", v, p)
		}
	case *kmsg.MetadataResponse:
		if len(r.Brokers) != 1 || len(r.Topics) != 1 || r.Topics[0].ErrorCode != 0 || len(r.Topics[0].Partitions) != 1 || r.Topics[0].Partitions[0].Leader != 1 {
			t.Errorf("metadata version %d: %+v", v, r)
		}
	case *kmsg.OffsetForLeaderEpochResponse:
		if p := r.Topics[0].Partitions[0]; p.ErrorCode != 0 || p.LeaderEpoch != 0 || p.EndOffset < 2 {
			t.Errorf("offset for leader epoch version %d: %+v", v, p)
		}
	case *kmsg.DescribeConfigsResponse:
		if len(r.Resources) != 1 || len(r.Resources[0].Configs) < 10 || r.Resources[0].Configs[0].ConfigSynonyms == nil {
			t.Errorf("describe configs version %d: %+v", v, r.Resources)
		}
	case *kmsg.DescribeTopicPartitionsResponse:
		if len(r.Topics) != 1 || len(r.Topics[0].Partitions) != 1 || r.Topics[0].Partitions[0].EligibleLeaderReplicas == nil {
			t.Errorf("describe topic partitions: %+v", r.Topics)
		}
	}
}

func namedClient() *kmsg.ApiVersionsRequest {
	req := kmsg.NewPtrApiVersionsRequest()
	req.ClientSoftwareName, req.ClientSoftwareVersion = "test", "1.0"
	return req
}

func listRequest(topic string, ts int64) *kmsg.ListOffsetsRequest {
	req := kmsg.NewPtrListOffsetsRequest()
	req.ReplicaID = -1
	rt := kmsg.NewListOffsetsRequestTopic()
	rt.Topic = topic
	rp := kmsg.NewListOffsetsRequestTopicPartition()
	rp.Timestamp, rp.CurrentLeaderEpoch = ts, -1
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	return req
}

func epochRequest(topic string, current, epoch int32) *kmsg.OffsetForLeaderEpochRequest {
	req := kmsg.NewPtrOffsetForLeaderEpochRequest()
	rt := kmsg.NewOffsetForLeaderEpochRequestTopic()
	rt.Topic = topic
	rp := kmsg.NewOffsetForLeaderEpochRequestTopicPartition()
	rp.CurrentLeaderEpoch, rp.LeaderEpoch = current, epoch
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	return req
}
