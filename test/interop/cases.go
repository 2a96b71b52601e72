package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
)

const (
	partitions = 3
	// bigValue is near the default of max.message.bytes, 1,048,588, which counts the batch around the record too.
	bigValue = 1_000_000
	// tooLarge is above it, and below what the clients are told that they may send.
	tooLarge = 2_000_000
)

// client describes one client under test.
type client struct {
	name       string
	open       func(ctx context.Context) (driver, error)
	features   features  // what it can write
	reads      *features // what it can read, where that is more
	codecs     []string
	idempotent bool
	waits      bool   // it has no acks=0
	noAdmin    bool   // it has no admin API: the reference makes its topics
	unknown    string // what it says of an unknown topic, as a regular expression
	tooLarge   string // what it says of a record above max.message.bytes
}

// groups are all cases, client by client.
func (e *env) groups() []group {
	var all []group
	for _, c := range e.clients() {
		all = append(all, group{name: c.name, open: c.open, cases: e.cases(c)})
	}
	return append(all, e.consoleGroups()...)
}

func (e *env) cases(c client) []testCase {
	cases := []testCase{{"auto-create", func(ctx context.Context, d driver) error { return e.autoCreate(ctx, c, d) }}}
	if !c.noAdmin {
		cases = append(cases, testCase{"create-topic", func(ctx context.Context, d driver) error { return e.createTopic(ctx, c, d) }})
	}
	for _, codec := range c.codecs {
		cases = append(cases, testCase{codec, func(ctx context.Context, d driver) error {
			return e.roundTrip(ctx, c, d, roundTrip{codec: codec, acks: "all"})
		}})
	}
	if c.idempotent {
		cases = append(cases, testCase{"idempotent", func(ctx context.Context, d driver) error {
			return e.roundTrip(ctx, c, d, roundTrip{codec: "none", acks: "all", idempotent: true})
		}})
	}
	for _, acks := range []string{"1", "0"} {
		if acks == "0" && c.waits {
			continue
		}
		cases = append(cases, testCase{"acks-" + acks, func(ctx context.Context, d driver) error {
			return e.roundTrip(ctx, c, d, roundTrip{codec: "none", acks: acks})
		}})
	}
	return append(cases,
		testCase{"reads-all-codecs", func(ctx context.Context, d driver) error { return e.crossRead(ctx, c, d) }},
		testCase{"big-record", func(ctx context.Context, d driver) error { return e.bigRecord(ctx, c, d) }},
		testCase{"too-large-record", func(ctx context.Context, d driver) error { return e.tooLargeRecord(ctx, c, d) }},
		testCase{"unknown-topic", func(ctx context.Context, d driver) error { return e.unknownTopic(ctx, c, d) }},
	)
}

func (c client) canRead() features {
	if c.reads != nil {
		return *c.reads
	}
	return c.features
}

// topic is a name that no other case uses.
func (c client) topic(what string) string { return strings.ReplaceAll(c.name, "@", "-") + "." + what }

// newTopic makes a topic without the client under test.
func (e *env) newTopic(ctx context.Context, name string) error {
	if err := e.ref.create(ctx, e.addr, name, partitions); err != nil {
		return fmt.Errorf("the reference client creates %s: %w", name, err)
	}
	return nil
}

type roundTrip struct {
	codec      string
	acks       string
	idempotent bool
}

// roundTrip: the client writes, then itself and the reference read the same back, in batches of the right codec.
func (e *env) roundTrip(ctx context.Context, c client, d driver, rt roundTrip) error {
	topic := c.topic(fmt.Sprintf("%s-%s-%t", rt.codec, rt.acks, rt.idempotent))
	if err := e.newTopic(ctx, topic); err != nil {
		return err
	}
	wrote := dataset(7, 300, partitions, c.features)
	args := produceArgs{addr: e.addr, topic: topic, codec: rt.codec, acks: rt.acks, idempotent: rt.idempotent, records: wrote}
	if err := d.produce(ctx, args); err != nil {
		return fmt.Errorf("produce: %w", err)
	}
	end := ends(wrote, partitions)
	got, attrs, err := e.ref.read(ctx, e.addr, topic, end)
	if err != nil {
		return fmt.Errorf("the reference reads: %w", err)
	}
	if err := compare(wrote, got, c.features); err != nil {
		return fmt.Errorf("the reference reads: %w", err)
	}
	if attrs[codecBits[rt.codec]] == 0 || rt.codec == "none" && len(attrs) != 1 {
		return fmt.Errorf("records by compression attribute are %v, want %s", attrs, rt.codec)
	}
	if got, err = d.consume(ctx, e.addr, topic, end); err != nil {
		return fmt.Errorf("consume: %w", err)
	}
	if err := compare(wrote, got, c.canRead()); err != nil {
		return fmt.Errorf("consume: %w", err)
	}
	return nil
}

// crossRead: the client reads what the reference wrote with every codec that the client knows, one after the other.
func (e *env) crossRead(ctx context.Context, c client, d driver) error {
	topic := c.topic("cross")
	if err := e.newTopic(ctx, topic); err != nil {
		return err
	}
	f := c.canRead()
	var wrote []record
	for i, codec := range c.codecs {
		part := dataset(uint64(100+i), 200, partitions, f)
		if err := e.ref.produce(ctx, produceArgs{addr: e.addr, topic: topic, codec: codec, acks: "all", idempotent: i%2 == 0, records: part}); err != nil {
			return fmt.Errorf("the reference writes %s: %w", codec, err)
		}
		wrote = append(wrote, part...)
	}
	got, err := d.consume(ctx, e.addr, topic, ends(wrote, partitions))
	if err != nil {
		return fmt.Errorf("consume: %w", err)
	}
	return compare(wrote, got, f)
}

// autoCreate: a topic comes into being by writing to it.
func (e *env) autoCreate(ctx context.Context, c client, d driver) error {
	topic := c.topic("auto")
	wrote := dataset(3, 20, 1, c.features)
	if err := d.produce(ctx, produceArgs{addr: e.addr, topic: topic, codec: "none", acks: "all", records: wrote}); err != nil {
		return fmt.Errorf("produce: %w", err)
	}
	got, err := d.consume(ctx, e.addr, topic, ends(wrote, 1))
	if err != nil {
		return fmt.Errorf("consume: %w", err)
	}
	return compare(wrote, got, c.canRead())
}

// createTopic: the client's own admin makes a topic, once.
func (e *env) createTopic(ctx context.Context, c client, d driver) error {
	topic := c.topic("created")
	if err := d.create(ctx, e.strict, topic, partitions); err != nil {
		return err
	}
	n, err := e.ref.partitions(ctx, e.strict, topic)
	if err != nil {
		return err
	}
	if n != partitions {
		return fmt.Errorf("the new topic has %d partitions, want %d", n, partitions)
	}
	return nil
}

// bigRecord: one record near the limit, of bytes that do not compress.
func (e *env) bigRecord(ctx context.Context, c client, d driver) error {
	topic := c.topic("big")
	if err := e.newTopic(ctx, topic); err != nil {
		return err
	}
	wrote := []record{big(bigValue), big(10), big(bigValue)}
	for p := range wrote { // a client may pack what goes to one partition into one batch, and that would be too large
		wrote[p].partition = int32(p)
	}
	if err := d.produce(ctx, produceArgs{addr: e.addr, topic: topic, codec: "none", acks: "all", records: wrote}); err != nil {
		return fmt.Errorf("produce: %w", err)
	}
	got, err := d.consume(ctx, e.addr, topic, ends(wrote, partitions))
	if err != nil {
		return fmt.Errorf("consume: %w", err)
	}
	return compare(wrote, got, c.canRead())
}

// big is a record of letters, so that every client can carry it.
func big(size int) record {
	rng := rand.New(rand.NewPCG(11, uint64(size)))
	value := make([]byte, size)
	for i := range value {
		value[i] = 'a' + byte(rng.IntN(26))
	}
	return record{timestamp: noTimestamp, key: []byte("key"), value: value}
}

// tooLargeRecord: the broker refuses it, the client says so, and the partition stays usable.
func (e *env) tooLargeRecord(ctx context.Context, c client, d driver) error {
	topic := c.topic("too-large")
	if err := e.newTopic(ctx, topic); err != nil {
		return err
	}
	err := d.produce(ctx, produceArgs{addr: e.addr, topic: topic, codec: "none", acks: "all", records: []record{big(tooLarge)}})
	if err := wantError(err, c.tooLarge); err != nil {
		return err
	}
	wrote := dataset(5, 10, partitions, c.features)
	if err := d.produce(ctx, produceArgs{addr: e.addr, topic: topic, codec: "none", acks: "all", records: wrote}); err != nil {
		return fmt.Errorf("produce after the refusal: %w", err)
	}
	got, err := d.consume(ctx, e.addr, topic, ends(wrote, partitions))
	if err != nil {
		return fmt.Errorf("consume: %w", err)
	}
	return compare(wrote, got, c.canRead())
}

// unknownTopic: with auto.create.topics.enable=false the client gets an error, and no topic appears.
func (e *env) unknownTopic(ctx context.Context, c client, d driver) error {
	topic := c.topic("unknown")
	err := d.produce(ctx, produceArgs{addr: e.strict, topic: topic, codec: "none", acks: "all", records: dataset(5, 1, 1, c.features)})
	if err := wantError(err, c.unknown); err != nil {
		return err
	}
	switch _, err := e.ref.partitions(ctx, e.strict, topic); {
	case err == nil:
		return errors.New("the topic exists now")
	case !strings.Contains(err.Error(), "UNKNOWN_TOPIC_OR_PARTITION"):
		return err
	}
	return nil
}

func wantError(err error, pattern string) error {
	switch {
	case err == nil:
		return errors.New("the client reports success")
	case !regexp.MustCompile(pattern).MatchString(err.Error()):
		return fmt.Errorf("want an error like /%s/, the client says: %w", pattern, err)
	}
	return nil
}
