package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/objstore/backend"
	"github.com/tierlog/tierlog/test/miniotest"
)

// special experiments are about tierlog alone.
var special = []struct {
	name string
	run  func(b *bench, ctx context.Context) error
}{
	{"segments", (*bench).manySegments},
	{"delay", (*bench).slowBucket},
	{"minio", (*bench).onMinIO},
}

func (b *bench) special(ctx context.Context) (errs error) {
	if !slices.Contains(b.systems, sysFsync) {
		return nil
	}
	for _, e := range special {
		if !b.only.MatchString(e.name) || ctx.Err() != nil {
			continue
		}
		b.say("%s", e.name)
		if err := e.run(b, ctx); err != nil {
			errs = errors.Join(errs, fmt.Errorf("%s: %w", e.name, err))
			b.say("failed: %v", err)
		}
	}
	return errs
}

// rollupAt is more than what gathers before WAL objects are merged and log segments are cut.
const rollupAt = 256 << 20

// manySegments: start on a bucket with many log segments, made by writing to a topic whose segments are small.
func (b *bench) manySegments(ctx context.Context) error {
	dir := filepath.Join(b.dir, "segments")
	bucket := filepath.Join(dir, "bucket")
	br, err := b.launch.tierlogOn(ctx, dir, "file://"+bucket+"?fsync=off")
	if err != nil {
		return err
	}
	segment := strconv.Itoa(1 << 20)
	if err := createTopic(ctx, br, "segments", partitions, map[string]*string{"segment.bytes": &segment}); err != nil {
		return errors.Join(err, br.Kill())
	}
	// Each round writes what should suffice; a segment ends at a batch, so there may be fewer than bytes say.
	made := 0
	for try := 0; made < b.sizes.segments && try < 20; try++ {
		missing := int64(b.sizes.segments-made)<<20 + rollupAt
		if _, _, err := fill(ctx, br, "segments", 1024, min(missing, 2<<30)); err != nil {
			return errors.Join(err, br.Kill())
		}
		if made, err = b.rolledUp(ctx, bucket, made); err != nil {
			return errors.Join(err, br.Kill())
		}
		b.say("  %d log segments", made)
	}
	if made < b.sizes.segments {
		return errors.Join(fmt.Errorf("the bucket has %d log segments, want %d", made, b.sizes.segments), br.Kill())
	}
	for range b.rounds {
		if err := br.Stop(); err != nil {
			return err
		}
		began := now()
		if err := br.again(ctx); err != nil {
			return err
		}
		if _, err := endOffsets(ctx, br, "segments"); err != nil {
			return errors.Join(err, br.Kill())
		}
		took := since(began).Seconds()
		b.results.add("start.segments", sysFsync, took)
		b.say("  %.2f s", took)
	}
	if empty, ok := b.results.median("start.empty", sysFsync); ok {
		full, _ := b.results.median("start.segments", sysFsync)
		b.results.add("start.ratio", sysFsync, full/empty)
	}
	return br.Stop()
}

// rolledUp waits until the number of log segments in a directory store has stopped growing.
func (b *bench) rolledUp(ctx context.Context, bucket string, before int) (int, error) {
	still := 0
	for {
		if err := pause(ctx, time.Second); err != nil {
			return before, err
		}
		n := 0
		err := filepath.WalkDir(bucket, func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil // removed while we walked
			}
			if err == nil && !d.IsDir() && strings.HasSuffix(path, ".log") {
				n++
			}
			return err
		})
		if err != nil {
			return n, err
		}
		if n > before {
			still = 0
		}
		if still++; still > 20 || n >= b.sizes.segments {
			return n, nil
		}
		before = n
	}
}

// withMinIO runs f with a MinIO of its own.
func (b *bench) withMinIO(ctx context.Context, name string, f func(*miniotest.Server) error) error {
	server, err := miniotest.Launch(ctx, filepath.Join(b.dir, "minio-"+name))
	if err != nil {
		return err
	}
	defer server.Stop()
	if err := server.CreateBucket("compare"); err != nil {
		return err
	}
	return f(server)
}

const putDelay = 50 * time.Millisecond

// noLimit lifts the limit of PUTs per second, which on a bucket saves money and not time.
var noLimit = []string{"--set", "flush.puts.per.second=1000"}

// slowBucket: how well requests share PUTs that take long.
func (b *bench) slowBucket(ctx context.Context) error {
	return b.withMinIO(ctx, "delay", func(server *miniotest.Server) error {
		proxy, stop, err := miniotest.StartProxy(ctx, server)
		if err != nil {
			return err
		}
		defer stop()
		proxy.SetFault(func(r *http.Request) miniotest.Fault {
			if r.Method == http.MethodPut {
				return miniotest.Fault{Delay: putDelay}
			}
			return miniotest.Fault{}
		})
		br, err := b.launch.tierlogOn(ctx, filepath.Join(b.dir, "delay"), proxy.StoreURL("compare", "broker"), noLimit...)
		if err != nil {
			return err
		}
		store, err := openStore(ctx, proxy.StoreURL("compare", "raw"))
		if err != nil {
			return errors.Join(err, br.Stop())
		}
		defer func() { _ = store.Close() }() // nothing is under way
		for round := range b.rounds {
			err = errors.Join(err, b.delayedOne(ctx, br, store, round), b.delayedMany(ctx, br, "delay.many-small", 16<<10), b.delayedMany(ctx, br, "delay.many", 256<<10))
			if err != nil {
				break
			}
		}
		return errors.Join(err, br.Stop())
	})
}

func openStore(ctx context.Context, url string) (objstore.Store, error) {
	spec, err := backend.Parse(url)
	if err != nil {
		return nil, err
	}
	return backend.Open(ctx, spec, slog.New(slog.DiscardHandler))
}

// delayedOne: one producer on one partition, with five requests in flight, against a PUT for each request.
func (b *bench) delayedOne(ctx context.Context, br broker, store objstore.Store, round int) error {
	topic := b.topic("delay-one")
	if err := createTopic(ctx, br, topic, 1, nil); err != nil {
		return err
	}
	conn, err := dialRaw(ctx, br.Addr())
	if err != nil {
		return err
	}
	defer conn.close()
	batch := recordBatch(16, 1024)
	frame := produceFrame(topic, []int32{0}, -1, batch)
	rate := func(count int, f func() error) (float64, error) {
		began := now()
		err := f()
		return float64(count) / since(began).Seconds(), err
	}
	few := b.sizes.delayed / 5
	put, err := rate(few, func() error {
		for i := range few {
			if _, err := store.Create(ctx, fmt.Sprintf("one/%d/%d", round, i), objstore.Bytes(batch)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	one, err := rate(few, func() error { return conn.pump(frame, few, 1) })
	if err != nil {
		return err
	}
	five, err := rate(b.sizes.delayed, func() error { return conn.pump(frame, b.sizes.delayed, 5) })
	if err != nil {
		return err
	}
	b.results.add("delay.put", sysFsync, put)
	b.results.add("delay.one", sysFsync, one)
	b.results.add("delay.five", sysFsync, five)
	b.results.add("delay.ratio", sysFsync, five/put)
	b.say("  a PUT each %.1f requests/s, one in flight %.1f, five %.1f", put, one, five)
	return nil
}

// delayedMany: 64 producers. What bounds them should be bytes, not the number of requests.
func (b *bench) delayedMany(ctx context.Context, br broker, key string, size int) error {
	const producers = 64
	topic := b.topic("delay-many")
	if err := createTopic(ctx, br, topic, partitions, nil); err != nil {
		return err
	}
	before, err := walPuts(ctx, br)
	if err != nil {
		return err
	}
	batch := recordBatch(size/1024, 1024)
	each := max(5, b.sizes.delayed/4)
	var g errgroup.Group
	began := now()
	for i := range producers {
		g.Go(func() error {
			conn, err := dialRaw(ctx, br.Addr())
			if err != nil {
				return err
			}
			defer conn.close()
			return conn.pump(produceFrame(topic, []int32{int32(i % partitions)}, -1, batch), each, 5)
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	took := since(began).Seconds()
	after, err := walPuts(ctx, br)
	if err != nil {
		return err
	}
	rate, perPut := float64(producers*each*size)/(1<<20)/took, float64(producers*each)/max(1, after-before)
	b.results.add(key, sysFsync, rate)
	b.results.add(key+"-puts", sysFsync, perPut)
	b.say("  64 producers of %d KiB: %.0f MiB/s, %.0f requests per PUT", size>>10, rate, perPut)
	return deleteTopic(ctx, br, topic)
}

// walPuts reads from the broker's metrics how many WAL objects it has written.
func walPuts(ctx context.Context, br broker) (float64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+br.(*tierlogBroker).HTTP()+"/metrics", http.NoBody)
	if err != nil {
		return 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer func() { _ = resp.Body.Close() }() // only read
	total := 0.0
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		line := lines.Text()
		if !strings.HasPrefix(line, "tierlog_bucket_requests_total{") || !strings.Contains(line, `op="create"`) || !strings.Contains(line, `purpose="wal"`) {
			continue
		}
		n, err := strconv.ParseFloat(line[strings.LastIndexByte(line, ' ')+1:], 64)
		if err != nil {
			return 0, fmt.Errorf("metric %q: %w", line, err)
		}
		total += n
	}
	return total, nil
}

// onMinIO: the broker on MinIO against the same number of parallel PUTs of the same size without a broker.
func (b *bench) onMinIO(ctx context.Context) error {
	return b.withMinIO(ctx, "produce", func(server *miniotest.Server) error {
		store, err := openStore(ctx, server.StoreURL("compare", "raw"))
		if err != nil {
			return err
		}
		defer func() { _ = store.Close() }() // nothing is under way
		br, err := b.launch.tierlogOn(ctx, filepath.Join(b.dir, "minio"), server.StoreURL("compare", "broker"), noLimit...)
		if err != nil {
			return err
		}
		for round := range b.rounds {
			if err = b.minioRound(ctx, br, store, round); err != nil {
				break
			}
		}
		return errors.Join(err, br.Stop())
	})
}

func (b *bench) minioRound(ctx context.Context, br broker, store objstore.Store, round int) error {
	const parallel, size = 4, 8 << 20
	body := objstore.Bytes(recordBatch(size/1024, 1000))
	count := max(1, int(b.sizes.minio)/size/parallel)
	var g errgroup.Group
	began := now()
	for p := range parallel {
		g.Go(func() error {
			for i := range count {
				if _, err := store.Create(ctx, fmt.Sprintf("%d/%d-%d", round, p, i), body); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	raw := float64(body.Size()*int64(count*parallel)) / (1 << 20) / since(began).Seconds()
	topic := b.topic("minio")
	if err := createTopic(ctx, br, topic, partitions, nil); err != nil {
		return err
	}
	var moved int64
	rate, cpu, err := b.load(ctx, br, b.sizes.minio, func() (err error) {
		moved, _, err = fillAs(ctx, br, topic, shape{connections: 8, batch: 256 << 10, record: 1024}, b.sizes.minio)
		return err
	})
	if err != nil {
		return err
	}
	rate *= float64(moved) / float64(b.sizes.minio)
	b.results.add("minio.raw", sysFsync, raw)
	b.results.add("minio.produce", sysFsync, rate)
	b.results.add("minio.ratio", sysFsync, rate/raw)
	b.say("  raw %.0f MiB/s, through the broker %.0f MiB/s, %.2f CPU-s/GiB", raw, rate, cpu)
	return deleteTopic(ctx, br, topic)
}
