package retention_test

import (
	"iter"
	"slices"
	"testing"

	"github.com/tierlog/tierlog/tiered/logid"
	"github.com/tierlog/tierlog/tiered/retention"
)

const now = int64(1_800_000_000_000)

// ago makes pieces of ten offsets and a hundred bytes each, with timestamps that many milliseconds ago; -1 stands for none.
func ago(ms ...int64) []retention.Piece {
	var out []retention.Piece
	for i, m := range ms {
		p := retention.Piece{Base: logid.Offset(i * 10), Last: logid.Offset(i*10 + 9), Bytes: 100, MaxTs: now - m}
		if m < 0 {
			p.MaxTs = -1
		}
		out = append(out, p)
	}
	return out
}

func written(p []retention.Piece, ms ...int64) []retention.Piece {
	for i := range ms {
		p[i].WrittenMs = now - ms[i]
	}
	return p
}

func TestPlan(t *testing.T) {
	const none = retention.Unlimited
	for _, c := range []struct {
		name      string
		start, hw logid.Offset
		ms, bytes int64
		pieces    []retention.Piece
		want      logid.Offset // 0: no advance
		wantBytes int64
		why       retention.Reason
	}{
		{"no bound", 0, 50, none, none, ago(900, 800), 0, 0, ""},
		{"no pieces", 0, 50, 0, 0, nil, 0, 0, ""},
		{"all young", 0, 50, 1000, none, ago(900, 800), 0, 0, ""},
		{"exactly as old is kept", 0, 50, 1000, none, ago(1000), 0, 0, ""},
		{"old ones go", 0, 50, 1000, none, ago(1200, 1001, 900, 2000, 1), 20, 200, retention.Time},
		{"one that stays keeps what follows", 0, 50, 1000, none, ago(5, 2000, 2000), 0, 0, ""},
		{"a future timestamp keeps all", 0, 50, 1000, none, ago(-now, 2000), 0, 0, ""},
		{"all may go", 0, 30, 1000, none, ago(1200, 1100, 1050), 30, 300, retention.Time},
		{"never beyond the high watermark", 0, 25, 1000, none, ago(1200, 1100, 1050), 20, 200, retention.Time},
		{"at once", 0, 30, 0, none, ago(3, 2, 0), 20, 200, retention.Time},
		{"timestamp 0 is a time", 0, 30, 1000, none, ago(now, 2), 10, 100, retention.Time},
		{"what was passed already", 10, 50, 1000, none, ago(1200, 1100, 900), 20, 100, retention.Time},
		{"no timestamp: when it was written", 0, 50, 1000, none, written(ago(-1, -1, 2000), 1200, 900), 10, 100, retention.Time},
		{"neither is known", 0, 50, 1000, none, ago(-1, 2000), 0, 0, ""},

		{"small enough", 0, 50, none, 500, ago(1, 1, 1, 1, 1), 0, 0, ""},
		{"the bound stays filled", 0, 50, none, 301, ago(1, 1, 1, 1, 1), 10, 100, retention.Size},
		{"exactly the bound stays", 0, 50, none, 300, ago(1, 1, 1, 1, 1), 20, 200, retention.Size},
		{"size 0", 0, 50, none, 0, ago(1, 1, 1, 1, 1), 50, 500, retention.Size},
		{"passed pieces have no size", 20, 50, none, 300, ago(1, 1, 1, 1, 1), 0, 0, ""},
		{"by time and by size", 0, 50, 1000, 300, ago(2000, 1, 1, 1, 1), 20, 200, retention.Size},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := retention.PartitionStat{
				Partition: logid.Partition{Topic: logid.TopicID{1}, Index: 3}, LogStart: c.start, HighWatermark: c.hw, RetentionMs: c.ms, RetentionBytes: c.bytes,
				Pieces: slices.Values(c.pieces),
			}
			for _, x := range c.pieces {
				if x.Last >= c.start {
					p.Bytes += x.Bytes
				}
			}
			got := retention.Plan([]retention.PartitionStat{p}, now)
			if c.want == 0 {
				if len(got) != 0 {
					t.Fatalf("got %+v, want no advance", got)
				}
				return
			}
			want := retention.Advance{Partition: p.Partition, LogStart: c.want, Bytes: c.wantBytes, Why: c.why}
			if len(got) != 1 || got[0] != want {
				t.Fatalf("got %+v, want %+v", got, want)
			}
			// Once it has moved, nothing moves at the same time.
			p.LogStart, p.Bytes = c.want, p.Bytes-c.wantBytes
			if again := retention.Plan([]retention.PartitionStat{p}, now); len(again) != 0 {
				t.Errorf("then %+v", again)
			}
		})
	}
}

// A partition with a long history must not be walked to its end in every round.
func TestPlanAsksForNoMorePiecesThanNeeded(t *testing.T) {
	asked := 0
	var pieces iter.Seq[retention.Piece] = func(yield func(retention.Piece) bool) {
		for _, p := range ago(2000, 1, 1, 1, 1, 1) {
			asked++
			if !yield(p) {
				return
			}
		}
	}
	got := retention.Plan([]retention.PartitionStat{
		{HighWatermark: 60, RetentionMs: 1000, RetentionBytes: retention.Unlimited, Bytes: 600, Pieces: pieces},
		{HighWatermark: 60, RetentionMs: retention.Unlimited, RetentionBytes: retention.Unlimited, Pieces: pieces},
	}, now)
	if len(got) != 1 || asked != 2 {
		t.Errorf("%d advances, %d pieces asked for; want 1 and 2", len(got), asked)
	}
}
