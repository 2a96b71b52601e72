package kafka

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestValidate(t *testing.T) {
	for _, tc := range []struct {
		cfg  Config
		want string
	}{
		{Config{Libs: "/nowhere", Dir: "x"}, `Libs "/nowhere"`},
		{Config{Libs: t.TempDir()}, "Dir is empty"},
		{Config{Libs: t.TempDir(), Dir: "x", HeapMiB: -1}, "HeapMiB -1"},
	} {
		if err := tc.cfg.Validate(); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%+v: got %v, want an error about %s", tc.cfg, err, tc.want)
		}
	}
}

func TestWaitReadyGivesUp(t *testing.T) {
	ports, err := FreePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	addr := fmt.Sprintf("127.0.0.1:%d", ports[0])
	exited := make(chan struct{})
	close(exited)
	if err := WaitReady(t.Context(), addr, exited); err == nil || !strings.Contains(err.Error(), "process ended") {
		t.Errorf("after the process ended: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := WaitReady(ctx, addr, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("after the deadline: %v", err)
	}
}
