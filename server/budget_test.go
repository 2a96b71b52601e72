package server_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/objstore/mem"
)

// reads and writes count the requests of any purpose.
func reads(c objstore.Counts) int64 {
	return c.Total(objstore.CountKey{Op: "read"}).Requests + c.Total(objstore.CountKey{Op: "head"}).Requests
}

func writes(c objstore.Counts) int64 {
	return c.Total(objstore.CountKey{Op: "create"}).Requests + c.Total(objstore.CountKey{Op: "swap"}).Requests
}

func lists(c objstore.Counts) int64 { return c.Total(objstore.CountKey{Op: "list"}).Requests }

// must sends records and waits for their acknowledgement.
func must(t *testing.T, cl *kgo.Client, records ...*kgo.Record) {
	t.Helper()
	if err := cl.ProduceSync(context.Background(), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// TestIdleHour: a broker with topics and nothing to do renews its lease, looks for new metadata, and does no more.
func TestIdleHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c objstore.Counter
		l := newLife(t, objstore.WithMetrics(mem.New(), &c))
		l.start()
		cl := l.client()
		for i := range 20 {
			must(t, cl, &kgo.Record{Topic: fmt.Sprintf("t%d", i), Value: []byte("x")})
		}
		cl.Close()
		time.Sleep(2 * time.Hour) // simulated: what the records cause (rollup, checkpoints) is done
		before := c.Snapshot()
		time.Sleep(time.Hour)
		idle := c.Snapshot().Sub(before)
		lease := idle.Total(objstore.CountKey{Purpose: objstore.PurposeLease})
		if writes(idle) > 750 || lists(idle) > 0 || reads(idle) > 3700 || lease.Requests < 600 {
			t.Errorf("an idle hour takes %d writes (at most 750), %d lists (none), %d reads (at most 3,700): %v", writes(idle), lists(idle), reads(idle), idle)
		}
		l.stop()
	})
}

// getsPerGiB bounds the GETs of a catch-up read: the design's budget.
const getsPerGiB = 300

// TestRequestsPerGiB produces and reads at a steady rate on simulated time and scales what it costs.
func TestRequestsPerGiB(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const (
			mib       = 1 << 20
			total     = 192 // MiB, at 40 MiB/s
			producers = 8
		)
		var c objstore.Counter
		l := newLife(t, objstore.WithMetrics(mem.New(), &c))
		l.set["flush.interval.ms"] = "250"   // as for a bucket that costs money
		l.set["memory.limit"] = "1073741824" // so that the cache holds all: readers that drift apart share it
		l.start()
		var clients []*kgo.Client // one alone would wait for its five requests in flight
		for range producers {
			clients = append(clients, l.client(kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.RecordPartitioner(kgo.ManualPartitioner())))
		}
		must(t, clients[0], &kgo.Record{Topic: "t", Value: []byte("x")})
		before := c.Snapshot()
		var wg sync.WaitGroup
		for i := range total * 4 {
			wg.Add(1)
			clients[i%producers].Produce(context.Background(), &kgo.Record{Topic: "t", Value: make([]byte, mib/4-1000+i%7)}, func(_ *kgo.Record, err error) {
				if err != nil {
					t.Error(err)
				}
				wg.Done()
			})
			time.Sleep(time.Second / 4 / 40)
		}
		wg.Wait()
		made := c.Snapshot().Sub(before)
		wal := made.Total(objstore.CountKey{Op: "create", Purpose: objstore.PurposeWAL}).Requests * 1024 / total
		if wal > 160 {
			t.Errorf("%d WAL objects per GiB, at most 160: %v", wal, made)
		}
		other := (writes(made) - made.Total(objstore.CountKey{Op: "create", Purpose: objstore.PurposeWAL}).Requests - made.Total(objstore.CountKey{Purpose: objstore.PurposeLease}).Requests) * 1024 / total
		if other > 40 || lists(made) > 0 {
			t.Errorf("%d writes of maintenance per GiB, at most 40, %d lists: %v", other, lists(made), made)
		}
		for _, cl := range clients {
			cl.Close()
		}
		time.Sleep(20 * time.Minute) // simulated: WAL objects are merged
		l.stop()
		l.start() // nothing is in memory

		before = c.Snapshot()
		for range 3 { // side by side
			wg.Go(func() {
				cl := l.client(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{"t": {0: kgo.NewOffset().AtStart()}}), kgo.FetchMaxBytes(4*mib))
				defer cl.Close()
				for n := 0; n < total*4; {
					fs := cl.PollFetches(context.Background())
					if err := fs.Err(); err != nil {
						t.Error(err)
						return
					}
					n += fs.NumRecords()
				}
			})
		}
		wg.Wait()
		read := c.Snapshot().Sub(before)
		gets := int64(0)
		for k, n := range read { // what a start and an idle broker read is budgeted elsewhere
			if k.Op == "read" && k.Purpose != objstore.PurposeLease && k.Purpose != objstore.PurposeMeta && k.Purpose != objstore.PurposeProbe && k.Purpose != objstore.PurposeRecovery {
				gets += n.Requests
			}
		}
		if bytes := read.Total(objstore.CountKey{Op: "read", Purpose: objstore.PurposeFetch}).Bytes; bytes > (total+2)*mib {
			t.Errorf("three readers side by side loaded %d MiB of %d: want one load per block", bytes/mib, total)
		}
		if per := gets * 1024 / total; per > getsPerGiB {
			t.Errorf("%d GETs per GiB for three readers side by side, at most %d: %v", per, getsPerGiB, read)
		}
		l.stop()
	})
}
