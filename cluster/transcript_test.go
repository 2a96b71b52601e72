package cluster

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tierlog/tierlog/objstore/objtest"
)

// Every request of a broker's life, but for the reads of slots, of which several are under way at a time.
func TestTranscript(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rec := objtest.NewRecorder(objtest.NewMem(), objtest.RecorderConfig{
			Skip: func(c objtest.Call) bool {
				return (c.Op == "read" || c.Op == "suffix") && strings.Contains(c.Key, "/meta/log/")
			},
		})
		life := func(first int) {
			rec.Note("open")
			l := open(t, rec, func(c *Config) { c.SnapshotEvery = 8 })
			rec.Note("join")
			m, err := l.Join(t.Context(), member(1))
			if err != nil {
				t.Fatal(err)
			}
			r := &running{log: l}
			rec.Note("run for 11 seconds")
			r.run(t, m)
			time.Sleep(11 * time.Second)
			rec.Note("five topics, and a producer id")
			for i := range 5 {
				mustPropose(t, l, create(first+i))
			}
			if _, err := m.NextProducerID(t.Context()); err != nil {
				t.Fatal(err)
			}
			l.uploads.Wait()
			rec.Note("leave and close")
			if err := m.Leave(t.Context()); err != nil {
				t.Fatal(err)
			}
			r.end(t)
			if err := l.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		life(1)
		life(6)
		rec.Golden(t, "transcript.txt")
	})
}
