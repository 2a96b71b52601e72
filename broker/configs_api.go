package broker

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tierlog/tierlog/topicconf"
	"github.com/tierlog/tierlog/wire"
)

// DescribeConfigs (key 32), versions 1 to 4: KIP-226 (synonyms), KIP-569 (documentation). For topics and for this
// broker. Arrays are empty, never null: Java's admin client needs it.

func (b *Broker) describeConfigs(_ context.Context, _ *wire.Request, msg *kmsg.DescribeConfigsRequest) (kmsg.Response, error) {
	resp := kmsg.NewPtrDescribeConfigsResponse()
	for i := range msg.Resources {
		r := &msg.Resources[i]
		out := kmsg.NewDescribeConfigsResponseResource()
		out.ResourceType, out.ResourceName = r.ResourceType, r.ResourceName
		out.Configs = []kmsg.DescribeConfigsResponseResourceConfig{}
		entries, err := b.configEntries(r.ResourceType, r.ResourceName)
		if err != nil {
			setError(&out.ErrorCode, &out.ErrorMessage, err)
		}
		for j := range entries {
			if r.ConfigNames == nil || slices.Contains(r.ConfigNames, entries[j].Name) {
				out.Configs = append(out.Configs, configAnswer(&entries[j], msg))
			}
		}
		resp.Resources = append(resp.Resources, out)
	}
	return resp, nil
}

func (b *Broker) configEntries(kind kmsg.ConfigResourceType, name string) ([]topicconf.Entry, error) {
	switch kind {
	case kmsg.ConfigResourceTypeTopic:
		t, err := b.askedTopic(&name, [16]byte{})
		if err != nil {
			return nil, err
		}
		return b.settings.Load().DescribeTopic(t.state.Load().overrides), nil
	case kmsg.ConfigResourceTypeBroker:
		if name != "" && name != strconv.Itoa(int(b.cfg.NodeID)) {
			return nil, &coded{kerr.InvalidRequest, fmt.Sprintf("Unexpected broker id, expected %d or empty string, but received %q", b.cfg.NodeID, clip(name))}
		}
		return b.settings.Load().Describe(), nil
	default:
		return nil, &coded{kerr.InvalidRequest, fmt.Sprintf("Unsupported resource type: %v", kind)}
	}
}

func configAnswer(e *topicconf.Entry, msg *kmsg.DescribeConfigsRequest) kmsg.DescribeConfigsResponseResourceConfig {
	c := kmsg.NewDescribeConfigsResponseResourceConfig()
	c.Name, c.ReadOnly, c.IsSensitive, c.Source = e.Name, e.ReadOnly, e.Sensitive, kmsg.ConfigSource(e.Source)
	c.IsDefault, c.ConfigType = e.IsDefault(), kmsg.ConfigType(e.Type)
	if !e.NullValue && !e.Sensitive {
		v := e.Value
		c.Value = &v
	}
	c.ConfigSynonyms = []kmsg.DescribeConfigsResponseResourceConfigConfigSynonym{}
	if msg.IncludeSynonyms {
		for _, o := range e.Origins {
			s := kmsg.NewDescribeConfigsResponseResourceConfigConfigSynonym()
			s.Name, s.Source = o.Name, kmsg.ConfigSource(o.Source)
			if !e.Sensitive {
				v := o.Value
				s.Value = &v
			}
			c.ConfigSynonyms = append(c.ConfigSynonyms, s)
		}
	}
	if msg.IncludeDocumentation {
		doc := e.Doc
		c.Documentation = &doc
	}
	return c
}

// IncrementalAlterConfigs (key 44), versions 0 and 1: KIP-339. For topics; a broker's settings change with a restart.

func (b *Broker) incrementalAlterConfigs(ctx context.Context, _ *wire.Request, msg *kmsg.IncrementalAlterConfigsRequest) (kmsg.Response, error) {
	resp := kmsg.NewPtrIncrementalAlterConfigsResponse()
	for i := range msg.Resources {
		r := &msg.Resources[i]
		out := kmsg.NewIncrementalAlterConfigsResponseResource()
		out.ResourceType, out.ResourceName = r.ResourceType, r.ResourceName
		if err := b.alterConfigs(ctx, r, msg.ValidateOnly); err != nil {
			setError(&out.ErrorCode, &out.ErrorMessage, err)
		}
		resp.Resources = append(resp.Resources, out)
	}
	return resp, nil
}

func (b *Broker) alterConfigs(ctx context.Context, r *kmsg.IncrementalAlterConfigsRequestResource, dry bool) error {
	switch r.ResourceType {
	case kmsg.ConfigResourceTypeTopic:
	case kmsg.ConfigResourceTypeBroker:
		return &coded{kerr.InvalidConfig, "The settings of a broker are changed by its flags, environment or file, and a restart."}
	default:
		return &coded{kerr.InvalidRequest, fmt.Sprintf("Unsupported resource type: %v", r.ResourceType)}
	}
	t, err := b.askedTopic(&r.ResourceName, [16]byte{})
	if err != nil {
		return err
	}
	ops := make([]topicconf.Op, 0, len(r.Configs))
	for _, c := range r.Configs {
		op := topicconf.Op{Kind: topicconf.OpKind(c.Op), Name: c.Name}
		if c.Value != nil {
			op.Value = *c.Value
		} else if op.Kind != topicconf.OpDelete {
			return &coded{kerr.InvalidRequest, fmt.Sprintf("Null value not supported for: %s", clip(c.Name))}
		}
		ops = append(ops, op)
	}
	edit := func(current map[string]string) (map[string]string, error) {
		return b.settings.Load().Alter(current, ops)
	}
	if dry {
		_, err := edit(t.state.Load().overrides)
		return err
	}
	return b.cfg.Meta.AlterTopic(ctx, t.id, edit)
}
