package cli

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// progressEvery is how often a progress line is drawn.
const progressEvery = 500 * time.Millisecond

// progressState is what there is to show about long work.
type progressState struct {
	records, bytes int64
	total          int64 // bytes; 0 if unknown
}

// showProgress draws a line on w until the returned function is called, which removes it.
// It does nothing where w is no terminal.
func (a *app) showProgress(w io.Writer, state func() progressState) (stop func()) {
	if !isTerminal(w) {
		return func() {}
	}
	start := a.Now()
	quit, gone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		tick := time.NewTicker(progressEvery)
		defer tick.Stop()
		width := 0
		for {
			select {
			case <-tick.C:
				line := progressLine(state(), a.Now().Sub(start))
				_, _ = fmt.Fprintf(w, "\r%-*s", width, line)
				width = len(line)
			case <-quit:
				_, _ = fmt.Fprintf(w, "\r%s\r", strings.Repeat(" ", width))
				return
			}
		}
	}()
	return func() { close(quit); <-gone }
}

// progressLine says what is done, how fast, and what is left.
func progressLine(s progressState, took time.Duration) string {
	rate := perSecond(s.bytes, took)
	line := fmt.Sprintf("%s, %s, %s/s", plural(s.records, "record"), size(s.bytes), size(int64(rate)))
	if s.total <= 0 {
		return line
	}
	left := max(0, s.total-s.bytes)
	line += fmt.Sprintf(", %d %% done, %s left", s.bytes*100/max(s.total, 1), size(left))
	if rate > 0 {
		line += ", " + (time.Duration(float64(left)/rate) * time.Second).Round(time.Second).String() + " to go"
	}
	return line
}

// summaryLine says what long work came to.
func summaryLine(s progressState, took time.Duration) string {
	return fmt.Sprintf("%s, %s in %s: %s/s", plural(s.records, "record"), size(s.bytes), duration(took),
		size(int64(perSecond(s.bytes, took))))
}
