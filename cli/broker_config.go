package cli

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/tierlog/tierlog/cli/settings"
	"github.com/tierlog/tierlog/objstore/backend"
	"github.com/tierlog/tierlog/topicconf"
)

// BrokerConfig is what `tierlog broker` was asked to run. It is valid when a BrokerFunc gets it.
type BrokerConfig struct {
	// Listen is the HOST:PORT of the Kafka listener. Port 0 takes a free one.
	Listen string
	// Advertise is the HOST:PORT that clients are told to connect to. Empty: the address bound.
	Advertise string
	// HTTP is the HOST:PORT of metrics, health and debugging. Empty: off.
	HTTP string
	// Store is the bucket. It prints without its secrets.
	Store backend.Spec
	// DataDir is the folder for what may be lost: the hot segment of acks=1 records.
	DataDir string
	// NodeID is the broker's id in the cluster.
	NodeID int32
	// Rack is where the broker runs, for clients that prefer a near one. Empty: unknown.
	Rack string
	// Broker is what --set gives over Kafka's defaults.
	Broker *topicconf.Broker
	// Log says what is logged and how.
	Log LogConfig
}

// Validate checks everything that can be checked without touching the network or the disk.
func (c BrokerConfig) Validate() error {
	return errors.Join(
		checkAddress("listen", c.Listen, false),
		checkAdvertise(c.Listen, c.Advertise),
		checkAddress("http", c.HTTP, true),
		notEmpty("data-dir", c.DataDir),
		checkNodeID(c.NodeID),
	)
}

// settingError says what is wrong with one setting.
type settingError struct {
	name, value, want string
}

func (e *settingError) Error() string { return fmt.Sprintf("%s %q: want %s", e.name, e.value, e.want) }

// withSources adds to every setting at fault where its value came from.
func withSources(err error, source func(name string) settings.Source) error {
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		var out []error
		for _, e := range many.Unwrap() {
			out = append(out, withSources(e, source))
		}
		return errors.Join(out...)
	}
	if bad, ok := errors.AsType[*settingError](err); ok {
		return sourced(err, source(bad.name))
	}
	if bad, ok := errors.AsType[*topicconf.InvalidError](err); ok {
		return sourced(fmt.Errorf("set %s: %w", bad.Name, err), source(bad.Name))
	}
	return err
}

// sourced adds where a value came from, unless it is the default.
func sourced(err error, src settings.Source) error {
	if src.Kind == settings.Default {
		return err
	}
	return fmt.Errorf("%w (%s)", err, src)
}

// checkAddress wants HOST:PORT; the host may be empty or a wildcard, the port 0.
func checkAddress(name, value string, mayBeEmpty bool) error {
	if value == "" && mayBeEmpty {
		return nil
	}
	_, port, err := net.SplitHostPort(value)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return &settingError{name, value, "HOST:PORT, the port from 0 to 65535"}
	}
	return nil
}

func checkAdvertise(listen, advertise string) error {
	if advertise == "" {
		host, port, err := net.SplitHostPort(listen)
		if ip := net.ParseIP(host); err == nil && (host == "" || ip != nil && ip.IsUnspecified()) {
			return &settingError{"advertise", "", "the HOST:PORT that clients connect to, since listen " + listen +
				" is every interface; such as --advertise " + net.JoinHostPort("localhost", port)}
		}
		return nil // A bad listen address is reported by itself.
	}
	host, port, err := net.SplitHostPort(advertise)
	n, perr := strconv.ParseUint(port, 10, 16)
	ip := net.ParseIP(host)
	if err != nil || perr != nil || n == 0 || host == "" || ip != nil && ip.IsUnspecified() {
		return &settingError{"advertise", advertise, "a HOST:PORT that clients can connect to"}
	}
	return nil
}

func notEmpty(name, value string) error {
	if strings.TrimSpace(value) == "" {
		return &settingError{name, value, "a path"}
	}
	return nil
}

const nodeIDs = "a number from 0 to 2147483647"

func checkNodeID(id int32) error {
	if id < 0 {
		return &settingError{"node-id", strconv.Itoa(int(id)), nodeIDs}
	}
	return nil
}

// brokerSettings are the settings of the broker in the order --print-config lists them, with their defaults.
var brokerSettings = []struct{ name, value, kind, usage string }{
	{"listen", "127.0.0.1:9092", "HOST:PORT", "address of the Kafka listener; port 0 takes a free one"},
	{"advertise", "", "HOST:PORT", "address that clients are told to connect to (default: the listener's)"},
	{"http", "127.0.0.1:9644", "HOST:PORT", "address of metrics, health and debugging; empty: off"},
	{"store", "./tierlog-data/bucket", "URL", "the bucket: " + backend.Forms},
	{"data-dir", "./tierlog-data/local", "DIR", "folder for local files; losing it loses nothing that was acknowledged with acks=all"},
	{"node-id", "1", "N", "the broker's id in the cluster"},
	{"rack", "", "NAME", "where the broker runs"},
	{"config", "", "FILE.yaml", "file of settings: the flags' names without dashes in front, and 'set' as a mapping"},
	{"log-level", "info", "LEVEL", "debug, info, warn or error"},
	{"log-format", "auto", "FORMAT", "text, json, or auto: text on a terminal, JSON otherwise"},
}

func brokerSettingNames() []string {
	names := make([]string, len(brokerSettings))
	for i, s := range brokerSettings {
		names[i] = s.name
	}
	return names
}

// brokerConfig parses layered settings. Its errors name the setting, the value, what is allowed and the source.
func brokerConfig(l *settings.Layered) (BrokerConfig, error) {
	cfg := BrokerConfig{
		Listen: l.Get("listen").Text, Advertise: l.Get("advertise").Text, HTTP: l.Get("http").Text,
		DataDir: l.Get("data-dir").Text, Rack: l.Get("rack").Text, Log: LogConfig{Format: l.Get("log-format").Text},
	}
	var serr, berr error
	if cfg.Store, serr = backend.Parse(l.Get("store").Text); serr != nil {
		serr = sourced(serr, l.Get("store").Source)
	}
	set, sources := map[string]string{}, map[string]settings.Source{}
	for _, v := range l.Assignments() {
		set[v.Name], sources[v.Name] = v.Text, v.Source
	}
	if cfg.Broker, berr = topicconf.NewBroker(set); berr != nil {
		berr = withSources(berr, func(name string) settings.Source { return sources[name] })
	}
	id, err := strconv.ParseInt(l.Get("node-id").Text, 10, 32)
	if err != nil {
		id, err = 0, &settingError{"node-id", l.Get("node-id").Text, nodeIDs}
	}
	cfg.NodeID = int32(id)
	var lerr error
	level, ok := parseLogLevel(l.Get("log-level").Text)
	if !ok {
		lerr = &settingError{"log-level", l.Get("log-level").Text, "one of debug, info, warn, error"}
	}
	cfg.Log.Level = level
	if !slices.Contains([]string{"auto", "text", "json"}, cfg.Log.Format) {
		lerr = errors.Join(lerr, &settingError{"log-format", cfg.Log.Format, "one of auto, text, json"})
	}
	bySetting := func(name string) settings.Source { return l.Get(name).Source }
	return cfg, errors.Join(withSources(errors.Join(err, lerr, cfg.Validate()), bySetting), serr, berr)
}
