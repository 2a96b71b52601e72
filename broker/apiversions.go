package broker

import (
	"cmp"
	"context"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tierlog/tierlog/wire"
)

// ApiVersions (key 18), versions 0 to 4: KIP-35, KIP-511 (a version that is too new is answered in version 0).

// served lists what is served. Produce 0 to 2 are advertised for librdkafka only, see produce.go.
func served() map[int16]api {
	r := func(lo, hi int16) wire.Range { return wire.Range{Min: lo, Max: hi} }
	return map[int16]api{
		0:  {r(0, 13), (*Broker).produce},
		1:  {r(4, 18), (*Broker).fetch},
		2:  {r(1, 11), plain(kmsg.NewPtrListOffsetsRequest, (*Broker).listOffsets)},
		3:  {r(0, 13), plain(kmsg.NewPtrMetadataRequest, (*Broker).metadata)},
		10: {r(0, 6), plain(kmsg.NewPtrFindCoordinatorRequest, (*Broker).findCoordinator)},
		18: {r(0, 4), (*Broker).apiVersions},
		19: {r(2, 7), plain(kmsg.NewPtrCreateTopicsRequest, (*Broker).createTopics)},
		20: {r(1, 6), plain(kmsg.NewPtrDeleteTopicsRequest, (*Broker).deleteTopics)},
		22: {r(0, 5), plain(kmsg.NewPtrInitProducerIDRequest, (*Broker).initProducerID)},
		23: {r(2, 4), plain(kmsg.NewPtrOffsetForLeaderEpochRequest, (*Broker).offsetForLeaderEpoch)},
		32: {r(1, 4), plain(kmsg.NewPtrDescribeConfigsRequest, (*Broker).describeConfigs)},
		37: {r(0, 3), plain(kmsg.NewPtrCreatePartitionsRequest, (*Broker).createPartitions)},
		44: {r(0, 1), plain(kmsg.NewPtrIncrementalAlterConfigsRequest, (*Broker).incrementalAlterConfigs)},
		60: {r(0, 2), plain(kmsg.NewPtrDescribeClusterRequest, (*Broker).describeCluster)},
		75: {r(0, 0), plain(kmsg.NewPtrDescribeTopicPartitionsRequest, (*Broker).describeTopicPartitions)},
	}
}

func (b *Broker) apiVersions(_ context.Context, req *wire.Request, reply *wire.Reply) error {
	resp := kmsg.NewPtrApiVersionsResponse()
	if req.Unsupported {
		resp.ErrorCode = kerr.UnsupportedVersion.Code
	} else {
		msg, err := parse(req, kmsg.NewPtrApiVersionsRequest())
		if err != nil {
			return err
		}
		resp.Version = req.Version
		if req.Version >= 3 && (!softwareName(msg.ClientSoftwareName) || !softwareName(msg.ClientSoftwareVersion)) {
			resp.ErrorCode = kerr.InvalidRequest.Code
		}
	}
	if resp.ErrorCode == 0 || req.Unsupported {
		for key, a := range b.apis {
			k := kmsg.NewApiVersionsResponseApiKey()
			k.ApiKey, k.MinVersion, k.MaxVersion = key, a.versions.Min, a.versions.Max
			resp.ApiKeys = append(resp.ApiKeys, k)
		}
		slices.SortFunc(resp.ApiKeys, func(a, b kmsg.ApiVersionsResponseApiKey) int { return cmp.Compare(a.ApiKey, b.ApiKey) })
	}
	reply.Send(resp)
	return nil
}

// softwareName tells whether a client's name or version has the form that KIP-511 asks for.
func softwareName(s string) bool {
	if s == "" {
		return false
	}
	for i := range len(s) {
		c := s[i]
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alnum && (c != '-' && c != '.' || i == 0 || i == len(s)-1) {
			return false
		}
	}
	return true
}
