package cli

import (
	"io"
	"log/slog"
)

// LogConfig says what is logged and how.
type LogConfig struct {
	Level slog.Level
	// Format is text, json, or auto: text on a terminal, JSON otherwise.
	Format string
}

// NewLogger returns a logger that writes to w.
func NewLogger(w io.Writer, cfg LogConfig) *slog.Logger {
	opts := &slog.HandlerOptions{Level: cfg.Level}
	if cfg.Format == "text" || cfg.Format != "json" && isTerminal(w) {
		return slog.New(slog.NewTextHandler(w, opts))
	}
	return slog.New(slog.NewJSONHandler(w, opts))
}

func parseLogLevel(s string) (slog.Level, bool) {
	level, ok := map[string]slog.Level{
		"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError,
	}[s]
	return level, ok
}
