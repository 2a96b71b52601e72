package objstore

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

const (
	probeRacers     = 8
	probeRoundsFull = 16
	probeListed     = 3
	probeSamples    = 64      // of latency
	probeObject     = 8 << 20 // bytes of an object that throughput is measured with
	probeParallel   = 4
	probeObjects    = 16 // per direction
)

func (p *prober) rounds() int {
	if p.opts.Full {
		return probeRoundsFull
	}
	return 1
}

// race lets the racers write their bodies to one key at the same time, and returns who won.
func race(bodies [][]byte, write func(body []byte) (won bool, err error)) (winners []int, err error) {
	won, errs := make([]bool, len(bodies)), make([]error, len(bodies))
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range bodies {
		wg.Go(func() {
			<-start
			won[i], errs[i] = write(bodies[i])
		})
	}
	close(start)
	wg.Wait()
	for i := range bodies {
		if won[i] {
			winners = append(winners, i)
		}
	}
	return winners, errors.Join(errs...)
}

func raceBodies() [][]byte {
	bodies := make([][]byte, probeRacers)
	for i := range bodies {
		bodies[i] = probeBody()
	}
	return bodies
}

// oneWinner checks a race's result against the object. More than one winner is proof, whatever became of the others.
func (p *prober) oneWinner(ctx context.Context, key string, bodies [][]byte, winners []int, err error) (Info, error) {
	switch {
	case len(winners) > 1:
		return Info{}, brokenf("%d of %d concurrent writes of one key were told that they had won", len(winners), len(bodies))
	case err != nil:
		return Info{}, err
	case len(winners) == 0:
		return Info{}, brokenf("of %d concurrent writes of one key none won", len(bodies))
	default:
		return p.expect(ctx, key, bodies[winners[0]])
	}
}

// createOnce races creates of one key, then creates it once more.
func (p *prober) createOnce(ctx context.Context) (string, error) {
	for round := range p.rounds() {
		key, bodies := p.key("create/%d", round), raceBodies()
		winners, err := race(bodies, func(body []byte) (bool, error) { return p.create(ctx, key, body) })
		if _, err := p.oneWinner(ctx, key, bodies, winners, err); err != nil {
			return "", err
		}
		again, err := p.create(ctx, key, probeBody())
		if err != nil {
			return "", err
		}
		if again {
			return "", brokenf("an object that exists was created again")
		}
		if _, err := p.expect(ctx, key, bodies[winners[0]]); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("%d x %d concurrent creates of one key: one winner each", p.rounds(), probeRacers), nil
}

// swapOnce races swaps of one object.
func (p *prober) swapOnce(ctx context.Context) (string, error) {
	key, first := p.key("swap"), probeBody()
	if err := p.plant(ctx, key, first); err != nil {
		return "", err
	}
	info, err := p.expect(ctx, key, first)
	if err != nil {
		return "", err
	}
	for range p.rounds() {
		bodies := raceBodies()
		winners, err := race(bodies, func(body []byte) (bool, error) { return p.swap(ctx, key, info.Version, body) })
		next, err := p.oneWinner(ctx, key, bodies, winners, err)
		if err != nil {
			return "", err
		}
		if next.Version == info.Version {
			return "", brokenf("the version did not change with the object")
		}
		info = next
	}
	return fmt.Sprintf("%d x %d concurrent swaps of one object: one winner each", p.rounds(), probeRacers), nil
}

// staleSwap swaps by a version that has passed, and a key that does not exist.
func (p *prober) staleSwap(ctx context.Context) (string, error) {
	key, first, second := p.key("stale"), probeBody(), probeBody()
	if err := p.plant(ctx, key, first); err != nil {
		return "", err
	}
	info, err := p.expect(ctx, key, first)
	if err != nil {
		return "", err
	}
	switch won, err := p.swap(ctx, key, info.Version, second); {
	case err != nil:
		return "", err
	case !won:
		return "", brokenf("a swap of the present version was refused")
	}
	switch won, err := p.swap(ctx, key, info.Version, probeBody()); {
	case err != nil:
		return "", err
	case won:
		return "", brokenf("a swap of a version that has passed was accepted")
	}
	if _, err := p.expect(ctx, key, second); err != nil {
		return "", err
	}
	missing := p.key("missing")
	if _, err := p.store.Swap(ctx, missing, info.Version, Bytes(probeBody())); err == nil {
		return "", brokenf("a swap of an object that does not exist was accepted")
	} else if !errors.Is(err, ErrChanged) {
		return "", err
	}
	return "swaps of a version that has passed, and of a missing object, are refused", nil
}

// plant creates an object that nobody else is after.
func (p *prober) plant(ctx context.Context, key string, body []byte) error {
	won, err := p.create(ctx, key, body)
	if err == nil && !won {
		err = brokenf("the create of a new key was refused")
	}
	return err
}

// readAfterWrite looks for a key before and after it is written: a store must not remember that it was missing.
func (p *prober) readAfterWrite(ctx context.Context) (string, error) {
	for round := range p.rounds() {
		key, body := p.key("read/%d", round), probeBody()
		if _, _, err := p.read(ctx, key); !errors.Is(err, ErrNotFound) {
			if err == nil {
				err = brokenf("an object is found that was never written")
			}
			return "", err
		}
		if err := p.plant(ctx, key, body); err != nil {
			return "", err
		}
		info, err := p.expect(ctx, key, body)
		if err != nil {
			return "", err
		}
		switch head, err := p.store.Head(ctx, key); {
		case errors.Is(err, ErrNotFound):
			return "", brokenf("an object that was just written has no head")
		case err != nil:
			return "", err
		case head.Version != info.Version || head.Size != info.Size:
			return "", brokenf("head and read describe an object differently")
		}
	}
	return "objects are read as soon as they are written", nil
}

// listAfterWrite lists between and after writes.
func (p *prober) listAfterWrite(ctx context.Context) (string, error) {
	for round := range p.rounds() {
		prefix := fmt.Sprintf("list/%d/", round)
		var want []string
		for i := range probeListed {
			key := p.key("%s%d", prefix, i)
			if err := p.plant(ctx, key, probeBody()); err != nil {
				return "", err
			}
			want = append(want, key)
			if err := p.listed(ctx, p.prefix+prefix, want); err != nil {
				return "", err
			}
		}
		page, err := p.store.List(ctx, p.prefix+prefix, want[0], 1)
		if err != nil {
			return "", err
		}
		if len(page.Objects) != 1 || page.Objects[0].Key != want[1] || !page.More {
			return "", brokenf("a list does not start after the key it was told, or does not say that there is more")
		}
	}
	return "objects are listed as soon as they are written, in order", nil
}

// listed compares a listing with the keys.
func (p *prober) listed(ctx context.Context, prefix string, want []string) error {
	page, err := p.store.List(ctx, prefix, "", 0)
	if err != nil {
		return err
	}
	var got []string
	for _, o := range page.Objects {
		got = append(got, o.Key)
	}
	switch {
	case slices.Equal(got, want):
		return nil
	case len(got) != len(want):
		return brokenf("a list shows %d objects where there are %d", len(got), len(want))
	default:
		return brokenf("a list is not in order, or shows other keys")
	}
}

// rangedReads reads parts of objects, also of an empty one.
func (p *prober) rangedReads(ctx context.Context) (string, error) {
	data := make([]byte, 3000)
	_, _ = rand.Read(data) // never fails
	key, empty := p.key("range"), p.key("empty")
	if err := errors.Join(p.plant(ctx, key, data), p.plant(ctx, empty, nil)); err != nil {
		return "", err
	}
	for _, r := range []struct {
		what   string
		key    string
		suffix bool
		off    int64
		length int
		want   []byte
	}{
		{"a range", key, false, 1000, 500, data[1000:1500]},
		{"a range past the end", key, false, 2900, 500, data[2900:]},
		{"a range behind the end", key, false, 3000, 10, nil},
		{"a suffix", key, true, 0, 100, data[2900:]},
		{"a suffix longer than the object", key, true, 0, 5000, data},
		{"a suffix of an empty object", empty, true, 0, 100, nil},
	} {
		buf := make([]byte, r.length)
		var n int
		var info Info
		var err error
		if r.suffix {
			n, info, err = p.store.ReadSuffix(ctx, r.key, buf)
		} else {
			n, info, err = p.store.ReadAt(ctx, r.key, buf, r.off)
		}
		size := int64(len(data))
		if r.key == empty {
			size = 0
		}
		switch {
		case errors.Is(err, ErrNotFound):
			return "", brokenf("%s: an object that was just written is not found", r.what)
		case err != nil:
			return "", fmt.Errorf("%s: %w", r.what, err)
		case !bytes.Equal(buf[:n], r.want) || info.Size != size:
			return "", brokenf("%s reads other bytes than were written", r.what)
		}
	}
	return "ranges and suffixes read what was written", nil
}

// deletes deletes two of three objects and one that never was.
func (p *prober) deletes(ctx context.Context) (string, error) {
	keys := []string{p.key("delete/0"), p.key("delete/1"), p.key("delete/2")}
	for _, key := range keys {
		if err := p.plant(ctx, key, probeBody()); err != nil {
			return "", err
		}
	}
	if err := p.store.Delete(ctx, []string{keys[0], keys[2], p.key("delete/never")}); err != nil {
		return "", err
	}
	if _, _, err := p.read(ctx, keys[0]); !errors.Is(err, ErrNotFound) {
		if err == nil {
			err = brokenf("an object that was deleted is still read")
		}
		return "", err
	}
	if err := p.listed(ctx, p.prefix+"delete/", keys[1:2]); err != nil {
		return "", err
	}
	return "deleted objects are neither read nor listed", nil
}

// latency times small requests, one after the other.
func (p *prober) latency(ctx context.Context) (string, error) {
	creates, reads := make([]time.Duration, probeSamples), make([]time.Duration, probeSamples)
	buf := make([]byte, 4<<10)
	_, _ = rand.Read(buf) // never fails
	for i := range probeSamples {
		key, body := p.key("latency/%02d", i), Bytes(probeBody(), buf)
		start := time.Now()
		if _, err := p.store.Create(ctx, key, body); err != nil {
			return "", err
		}
		creates[i] = time.Since(start)
		start = time.Now()
		if _, _, err := p.store.ReadAt(ctx, key, buf, 0); err != nil {
			return "", err
		}
		reads[i] = time.Since(start)
	}
	return fmt.Sprintf("create p50 %s p99 %s, read p50 %s p99 %s (4 KiB, %d each)",
		quantile(creates, 50), quantile(creates, 99), quantile(reads, 50), quantile(reads, 99), probeSamples), nil
}

// quantile returns the q-th percentile, rounded for people.
func quantile(d []time.Duration, q int) time.Duration {
	d = slices.Sorted(slices.Values(d))
	return d[min(len(d)-1, len(d)*q/100)].Round(10 * time.Microsecond)
}

// throughput writes and reads large objects, some at a time.
func (p *prober) throughput(ctx context.Context) (string, error) {
	data := make([]byte, probeObject-len(probeBody()))
	_, _ = rand.Read(data) // never fails
	keys := make([]string, probeObjects)
	for i := range keys {
		keys[i] = p.key("throughput/%02d", i)
	}
	buffers := make([][]byte, probeParallel)
	for i := range buffers {
		buffers[i] = make([]byte, probeObject)
	}
	write, err := p.parallel(keys, func(_ int, key string) error {
		_, err := p.store.Create(ctx, key, Bytes(probeBody(), data))
		return err
	})
	if err != nil {
		return "", err
	}
	read, err := p.parallel(keys, func(worker int, key string) error {
		n, _, err := p.store.ReadAt(ctx, key, buffers[worker], 0)
		if err == nil && n != probeObject {
			err = brokenf("%d of %d bytes were read", n, probeObject)
		}
		return err
	})
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("write %.0f MiB/s, read %.0f MiB/s (%d x 8 MiB, %d at a time)", write, read, probeObjects, probeParallel), nil
}

// parallel runs op for each key, and returns the MiB per second.
func (p *prober) parallel(keys []string, op func(worker int, key string) error) (rate float64, err error) {
	work := make(chan string, len(keys))
	for _, key := range keys {
		work <- key
	}
	close(work)
	errs := make([]error, probeParallel)
	var wg sync.WaitGroup
	start := time.Now()
	for w := range probeParallel {
		wg.Go(func() {
			for key := range work {
				if errs[w] = op(w, key); errs[w] != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	took := time.Since(start).Seconds()
	return float64(len(keys)) * probeObject / (1 << 20) / max(took, 1e-9), errors.Join(errs...)
}
