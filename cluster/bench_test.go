package cluster

import (
	"fmt"
	"testing"
	"time"

	"github.com/tierlog/tierlog/objstore/objtest"
)

// stateOf returns a state of n topics.
func stateOf(b *testing.B, n int) *State {
	b.Helper()
	s := NewState()
	for i := range n {
		add(b, s, &TopicCreated{Name: fmt.Sprint("topic.", i), ID: id(i + 1), Partitions: 1})
	}
	return s
}

func add(b *testing.B, s *State, records ...Record) {
	b.Helper()
	d := s.Begin()
	for _, r := range records {
		if err := d.Add(r); err != nil {
			b.Fatal(err)
		}
	}
	d.commit()
}

// BenchmarkApplyTopic must not depend on how many topics there are.
func BenchmarkApplyTopic(b *testing.B) {
	for _, n := range []int{10, 1000, 50_000} {
		b.Run(fmt.Sprint(n, "-topics"), func(b *testing.B) {
			s := stateOf(b, n)
			b.ReportAllocs()
			for b.Loop() {
				add(b, s, &TopicCreated{Name: "another", ID: id(60_000), Partitions: 1})
				add(b, s, &TopicDeleted{ID: id(60_000)})
			}
		})
	}
}

// BenchmarkPropose5000Topics creates 5,000 topics one by one through the log, snapshots included.
func BenchmarkPropose5000Topics(b *testing.B) {
	for b.Loop() {
		l, err := Open(b.Context(), Config{Store: objtest.NewMem(), Now: time.Now})
		if err != nil {
			b.Fatal(err)
		}
		for i := range 5000 {
			_, err := l.Propose(b.Context(), func(*State) ([]Record, error) {
				return []Record{&TopicCreated{Name: fmt.Sprint("topic-", i), ID: id(i + 1), Partitions: 1}}, nil
			})
			if err != nil {
				b.Fatal(err)
			}
		}
		if err := l.Close(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCreate5000Partitions creates one topic of 5,000 partitions.
func BenchmarkCreate5000Partitions(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		add(b, NewState(), joinRecord(1), &TopicCreated{Name: "wide", ID: id(1), Partitions: 5000})
	}
}

// BenchmarkJoin takes over 10,000 partitions of 5,000 topics.
func BenchmarkJoin(b *testing.B) {
	s := NewState()
	for i := range 5000 {
		add(b, s, &TopicCreated{Name: fmt.Sprint("topic-", i), ID: id(i + 1), Partitions: 2})
	}
	for b.Loop() {
		add(b, s, joinRecord(1))
	}
}

func BenchmarkLookup(b *testing.B) {
	s := stateOf(b, 5000)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, ok := s.Topic("topic.77"); !ok {
				b.Fatal("topic is gone")
			}
		}
	})
}

// BenchmarkSnapshot encodes and reads a state of 5,000 topics.
func BenchmarkSnapshot(b *testing.B) {
	s := stateOf(b, 5000)
	for b.Loop() {
		body, err := encodeSnapshot(s, testCluster, [16]byte{1})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := decodeSnapshot(body, testCluster, s.slot); err != nil {
			b.Fatal(err)
		}
		b.SetBytes(int64(len(body)))
	}
}
