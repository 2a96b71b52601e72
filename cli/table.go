package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/dustin/go-humanize"
)

// table prints rows in aligned columns.
type table struct {
	// head holds the columns' names; one that starts with '>' is aligned to the right.
	head []string
	rows [][]string
}

func newTable(head ...string) *table { return &table{head: head} }

// row adds a row; numbers get thousands separators only where the caller puts them.
func (t *table) row(cells ...any) {
	row := make([]string, len(cells))
	for i, c := range cells {
		row[i] = fmt.Sprint(c)
	}
	t.rows = append(t.rows, row)
}

// write prints the table with indent spaces before each line.
func (t *table) write(w io.Writer, indent int) error {
	width := make([]int, len(t.head))
	head := make([]string, len(t.head))
	for i, h := range t.head {
		head[i] = strings.TrimPrefix(h, ">")
		width[i] = utf8.RuneCountInString(head[i])
		for _, r := range t.rows {
			width[i] = max(width[i], utf8.RuneCountInString(r[i]))
		}
	}
	var b strings.Builder
	for _, r := range append([][]string{head}, t.rows...) {
		cells := make([]string, len(r))
		for i, cell := range r {
			pad := strings.Repeat(" ", width[i]-utf8.RuneCountInString(cell))
			if strings.HasPrefix(t.head[i], ">") {
				cells[i] = pad + cell
			} else {
				cells[i] = cell + pad
			}
		}
		line := strings.Repeat(" ", indent) + strings.Join(cells, "  ")
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// writeJSON prints v as indented JSON.
func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// count prints a number with thousands separators.
func count[N int | int32 | int64 | uint64](n N) string { return humanize.Comma(int64(n)) }

// plural prints a number with its noun.
func plural[N int | int32 | int64](n N, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return count(n) + " " + noun + "s"
}

// size prints a number of bytes.
func size[N int | int64](n N) string { return humanize.IBytes(uint64(max(n, 0))) }

// perSecond returns a rate, zero where no time has passed.
func perSecond(n int64, d time.Duration) float64 {
	if d <= 0 {
		return 0
	}
	return float64(n) / d.Seconds()
}

// duration prints a time span with three significant figures.
func duration(d time.Duration) string {
	switch {
	case d < 0:
		return "-" + duration(-d)
	case d < 999500*time.Nanosecond:
		return figures(float64(d)/float64(time.Microsecond)) + " µs"
	case d < 999500*time.Microsecond:
		return figures(float64(d)/float64(time.Millisecond)) + " ms"
	case d < 100*time.Second:
		return figures(d.Seconds()) + " s"
	default:
		return d.Round(time.Second).String()
	}
}

// figures prints a number with three significant figures, or all those before the point.
func figures(f float64) string {
	switch {
	case f >= 99.95:
		return humanize.Comma(int64(math.Round(f)))
	case f >= 9.995:
		return strconv.FormatFloat(f, 'f', 1, 64)
	default:
		return strconv.FormatFloat(f, 'f', 2, 64)
	}
}
