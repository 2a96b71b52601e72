package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/tierlog/tierlog/broker"
	"github.com/tierlog/tierlog/cli"
	"github.com/tierlog/tierlog/cluster"
	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/tiered/logid"
)

// metadata is the broker's view of the cluster: it implements broker.Metadata over the metadata log, and hands every
// change to the broker in the log's order.
type metadata struct {
	log      *cluster.Log
	member   *cluster.Membership
	epoch    logid.Epoch
	previous []logid.Epoch
	logger   *slog.Logger
	release  func() // stops keeping the lease

	left atomic.Bool // the membership was ended in order: no news that it is over

	mu      sync.Mutex // orders attach and the changes that come meanwhile
	handler *broker.Broker
}

// clusterErrors maps the metadata log's errors to Kafka's codes.
var clusterErrors = []struct {
	err  error
	code *kerr.Error
}{
	{cluster.ErrTopicExists, kerr.TopicAlreadyExists},
	{cluster.ErrUnknownTopic, kerr.UnknownTopicOrPartition},
	{cluster.ErrInvalidTopic, kerr.InvalidTopicException},
	{cluster.ErrInvalidPartitions, kerr.InvalidPartitions},
	{cluster.ErrTooLarge, kerr.PolicyViolation},
	{cluster.ErrFenced, kerr.NotController},
	{cluster.ErrLapsed, kerr.NotController},
	{cluster.ErrUnresolved, kerr.RequestTimedOut},
	{context.DeadlineExceeded, kerr.RequestTimedOut},
}

// kafkaError gives a metadata error its code and keeps its text.
func kafkaError(err error) error {
	if err == nil {
		return nil
	}
	for _, m := range clusterErrors {
		if errors.Is(err, m.err) {
			return fmt.Errorf("%w: %w", m.code, err)
		}
	}
	return err
}

func (m *metadata) cluster() logid.ClusterID { return m.log.ClusterID() }

// ClusterID implements broker.Metadata.
func (m *metadata) ClusterID() string { return m.log.ClusterID().String() }

// Members implements broker.Metadata.
func (m *metadata) Members() []broker.Member {
	brokers := m.log.State().Brokers()
	out := make([]broker.Member, 0, len(brokers))
	for _, b := range brokers {
		out = append(out, broker.Member{NodeID: int32(b.Node), Host: b.Host, Port: b.Port, Rack: b.Rack})
	}
	return out
}

// propose appends the records that build makes of the current state.
func (m *metadata) propose(ctx context.Context, build func(*cluster.State) ([]cluster.Record, error)) error {
	_, err := m.log.Propose(ctx, build)
	return kafkaError(err)
}

func (m *metadata) proposeOne(ctx context.Context, r cluster.Record) error {
	return m.propose(ctx, func(*cluster.State) ([]cluster.Record, error) { return []cluster.Record{r}, nil })
}

// CreateTopics implements broker.Metadata: all in one slot if they agree with the state, else one by one, so that each
// topic gets its own error.
func (m *metadata) CreateTopics(ctx context.Context, topics []broker.NewTopic) []error {
	records := make([]cluster.Record, len(topics))
	for i, t := range topics {
		records[i] = &cluster.TopicCreated{Name: t.Name, ID: t.ID, Partitions: t.Partitions, Configs: t.Configs}
	}
	errs := make([]error, len(topics))
	err := m.propose(ctx, func(*cluster.State) ([]cluster.Record, error) { return records, nil })
	if err == nil || len(topics) == 1 {
		for i := range errs {
			errs[i] = err
		}
		return errs
	}
	for i := range records {
		errs[i] = m.proposeOne(ctx, records[i])
	}
	return errs
}

// DeleteTopic implements broker.Metadata.
func (m *metadata) DeleteTopic(ctx context.Context, id logid.TopicID) error {
	return m.proposeOne(ctx, &cluster.TopicDeleted{ID: id})
}

// AddPartitions implements broker.Metadata.
func (m *metadata) AddPartitions(ctx context.Context, id logid.TopicID, count int32) error {
	return m.proposeOne(ctx, &cluster.PartitionsAdded{ID: id, Total: count})
}

// AlterTopic implements broker.Metadata.
func (m *metadata) AlterTopic(ctx context.Context, id logid.TopicID, edit func(map[string]string) (map[string]string, error)) error {
	return m.propose(ctx, func(s *cluster.State) ([]cluster.Record, error) {
		t, ok := s.TopicByID(id)
		if !ok {
			return nil, cluster.ErrUnknownTopic
		}
		next, err := edit(t.Configs)
		if err != nil {
			return nil, err
		}
		return []cluster.Record{&cluster.TopicConfigAltered{ID: id, Configs: next}}, nil
	})
}

// retire tells the cluster that an epoch's WAL holds nothing any more.
func (m *metadata) retire(ctx context.Context, e logid.Epoch) error {
	return m.proposeOne(ctx, &cluster.EpochRetired{Epoch: e})
}

// attach hands the current topics to the broker, and from then on every change.
func (m *metadata) attach(b *broker.Broker) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.handler = b
	m.log.Subscribe(m.changed)
	for _, t := range m.log.State().Topics() {
		if err := b.ApplyTopic(spec(t)); err != nil {
			return err
		}
	}
	return nil
}

// changed applies one slot's records. The metadata log calls it in order.
func (m *metadata) changed(c cluster.Change) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range c.Records {
		switch r := r.(type) {
		case *cluster.TopicCreated:
			m.apply(r.ID)
		case *cluster.PartitionsAdded:
			m.apply(r.ID)
		case *cluster.TopicConfigAltered:
			m.apply(r.ID)
		case *cluster.TopicDeleted:
			m.handler.RemoveTopic(r.ID)
		}
	}
}

func (m *metadata) apply(id logid.TopicID) {
	t, ok := m.log.State().TopicByID(id)
	if !ok {
		return // deleted later in the same slot
	}
	if err := m.handler.ApplyTopic(spec(t)); err != nil {
		m.logger.Error("topic cannot be opened", slog.String("topic", t.Name), slog.Any("err", err))
	}
}

func spec(t *cluster.Topic) broker.TopicSpec {
	s := broker.TopicSpec{Name: t.Name, ID: t.ID, Configs: t.Configs, LeaderEpochs: make([]int32, len(t.Partitions))}
	for i := range t.Partitions {
		s.LeaderEpochs[i] = int32(t.Partitions[i].LeaderEpoch)
	}
	return s
}

// join reads the metadata log, becomes a broker of the cluster and keeps its lease until the returned function is called.
func (s *process) join(ctx context.Context) (stop func(), err error) {
	log, err := s.openCluster(ctx)
	if err != nil {
		return nil, err
	}
	host, port := s.advertised()
	self := cluster.Member{Node: cluster.NodeID(s.cfg.NodeID), Host: host, Port: port, Rack: s.cfg.Rack, Version: cli.Version()}
	var member *cluster.Membership
	for member == nil {
		if member, err = log.Join(ctx, self); err == nil {
			break
		}
		if !passing(err) {
			return nil, fmt.Errorf("join the cluster: %w", err)
		}
		s.log.WarnContext(ctx, "cannot join yet; trying again", slog.Any("err", err))
		if !sleep(ctx, time.Second) {
			return nil, ctx.Err()
		}
	}
	m := &metadata{log: log, member: member, epoch: member.Epoch(), logger: s.log}
	for _, e := range log.State().Epochs() {
		if e.Epoch < m.epoch {
			m.previous = append(m.previous, e.Epoch)
		}
	}
	s.meta = m
	kctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := member.Run(kctx); err != nil && kctx.Err() == nil && !m.left.Load() {
			s.log.ErrorContext(kctx, "the lease is not kept any more", slog.Any("err", err))
		}
	}()
	m.release = sync.OnceFunc(func() {
		cancel()
		<-ended
	})
	return m.release, nil
}

// passing tells whether an error of the bucket may go away by itself.
func passing(err error) bool {
	for _, e := range []error{objstore.ErrUnavailable, objstore.ErrUnknown, objstore.ErrBusy, cluster.ErrUnresolved} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// openCluster opens the metadata log, trying again while the bucket cannot be reached.
func (s *process) openCluster(ctx context.Context) (*cluster.Log, error) {
	for {
		log, err := cluster.Open(ctx, cluster.Config{
			Store: s.store, Logger: s.log, Now: s.now,
			LeaseTTL: s.cfg.Broker.SessionTimeout, RenewEvery: s.cfg.Broker.HeartbeatInterval,
		})
		if err == nil {
			return log, nil
		}
		if !passing(err) {
			return nil, fmt.Errorf("store %s: %w", s.cfg.Store, err)
		}
		s.log.WarnContext(ctx, "the bucket cannot be reached; trying again", slog.Any("store", s.cfg.Store), slog.Any("err", err))
		if !sleep(ctx, 2*time.Second) {
			return nil, ctx.Err()
		}
	}
}

// serving tells whether the lease holds and nobody took over.
func (m *metadata) serving() bool { return m.member.Serving() == nil }

// fenced is closed when another process took over.
func (m *metadata) fenced() <-chan struct{} { return m.member.Fenced() }

// NextProducerID implements broker.Metadata.
func (m *metadata) NextProducerID(ctx context.Context) (int64, error) {
	id, err := m.member.NextProducerID(ctx)
	return id, kafkaError(err)
}

// leave ends the membership in order: the next broker need not wait for the lease.
func (m *metadata) leave(ctx context.Context) error {
	m.left.Store(true)
	m.release()
	err := m.member.Leave(ctx)
	return errors.Join(err, m.log.Close(ctx))
}
