// Package topicconf is the configuration of topics and brokers in Kafka's names, with the types, checks, defaults and
// error texts of Apache Kafka 4.3.
//
// A [Broker] is made of the operator's settings and gives the defaults of topics; a [Topic] is what the engine needs of
// one topic's configuration. Both are immutable: a change makes a new one.
//
// Invariants:
//
//   - What is accepted is honoured. A value that tierlog can not honour is refused with the reason; it is never stored
//     and ignored. A setting without an effect here accepts Kafka's default only, since that changes nothing.
//   - A name that Kafka does not know is refused as Kafka refuses it.
//   - Stored overrides are what the client sent; what is described back is the parsed value in canonical form.
//   - The package does no I/O and knows neither the protocol nor the engine; the numbers of Type, Source and OpKind are Kafka's.
package topicconf

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Type is a configuration's type, numbered as in DescribeConfigs.
type Type int8

// The types in use.
const (
	Boolean Type = 1
	String  Type = 2
	Int     Type = 3
	Short   Type = 4
	Long    Type = 5
	Double  Type = 6
	List    Type = 7
)

// String returns Kafka's name of the type.
func (t Type) String() string {
	names := [...]string{Boolean: "BOOLEAN", String: "STRING", Int: "INT", Short: "SHORT", Long: "LONG", Double: "DOUBLE", List: "LIST"}
	if t < 1 || int(t) >= len(names) {
		return "TYPE(" + strconv.Itoa(int(t)) + ")"
	}
	return names[t]
}

// Importance says how often a setting matters to an operator.
type Importance uint8

// The importances, most important first.
const (
	High Importance = iota
	Medium
	Low
)

// String returns Kafka's name of the importance.
func (i Importance) String() string {
	switch i {
	case High:
		return "HIGH"
	case Medium:
		return "MEDIUM"
	default:
		return "LOW"
	}
}

// Synonym is a broker setting that gives a topic setting its default.
type Synonym struct {
	Name string
	// Scale is the factor from the synonym's unit to the setting's (hours to milliseconds); 0 means 1.
	Scale int64
}

// Def describes one setting. Treat it as read-only.
type Def struct {
	Name string
	Type Type
	// Default is the canonical text of the default; Null says that there is none.
	Default    string
	Null       bool
	Valid      string // what is allowed, in words; empty when the type says all
	Importance Importance
	Doc        string
	ReadOnly   bool // takes a restart to change
	Sensitive  bool // never shown
	// Synonyms of a topic setting, strongest first; of a broker setting, the settings it stands in for.
	Synonyms []Synonym

	// check returns what is wrong with a parsed value in Kafka's words, or an empty text.
	check func(value) string
	// only, when not empty, says why no other value than the default can be honoured.
	only string
}

// InvalidError says which setting was refused and why. It maps to Kafka's INVALID_CONFIG.
type InvalidError struct {
	Name   string
	Value  string
	Reason string // what is allowed, or why the value can not be honoured
	// Unknown is what the name was looked up among ("topic", "broker") when there is no such setting, else empty.
	Unknown string
}

// Error uses Kafka's texts, since clients show them to people who look them up.
func (e *InvalidError) Error() string {
	if e.Unknown != "" {
		return fmt.Sprintf("Unknown %s config name: %s", e.Unknown, e.Name)
	}
	return fmt.Sprintf("Invalid value %s for configuration %s: %s", e.Value, e.Name, e.Reason)
}

// value is a parsed setting; the field of its type is set.
type value struct {
	typ  Type
	b    bool
	i    int64
	f    float64
	s    string
	list []string
}

// text returns the canonical text.
func (v value) text() string {
	switch v.typ {
	case Boolean:
		return strconv.FormatBool(v.b)
	case Int, Short, Long:
		return strconv.FormatInt(v.i, 10)
	case Double:
		return formatDouble(v.f)
	case List:
		return strings.Join(v.list, ",")
	default:
		return v.s
	}
}

// formatDouble writes a number as Java does for the magnitudes in use: always with a fraction.
func formatDouble(f float64) string {
	s := strconv.FormatFloat(f, 'f', -1, 64)
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}

// parse reads a value as Kafka's ConfigDef does and checks it; see honoured for what is accepted beyond that.
func (d *Def) parse(text string) (value, error) {
	v, reason := parseType(d.Type, strings.TrimSpace(text))
	if reason == "" && d.check != nil {
		reason = d.check(v)
	}
	if reason != "" {
		return value{}, &InvalidError{Name: d.Name, Value: clip(text), Reason: reason}
	}
	return v, nil
}

// honoured parses a value and refuses what is valid in Kafka but without effect here.
func (d *Def) honoured(text string) (value, error) {
	v, err := d.parse(text)
	if err != nil {
		return value{}, err
	}
	if d.only != "" && v.text() != d.Default {
		return value{}, &InvalidError{Name: d.Name, Value: clip(text), Reason: d.only}
	}
	return v, nil
}

// mustParse reads a default of the tables; a test parses them all.
func (d *Def) mustParse(text string) value {
	v, err := d.parse(text)
	if err != nil {
		panic("topicconf: " + err.Error())
	}
	return v
}

func parseType(t Type, s string) (value, string) {
	v := value{typ: t}
	var err error
	switch t {
	case Boolean:
		switch strings.ToLower(s) {
		case "true":
			v.b = true
		case "false":
		default:
			return v, "Expected value to be either true or false"
		}
	case Int:
		v.i, err = strconv.ParseInt(s, 10, 32)
	case Short:
		v.i, err = strconv.ParseInt(s, 10, 16)
	case Long:
		v.i, err = strconv.ParseInt(s, 10, 64)
	case Double:
		v.f, err = strconv.ParseFloat(s, 64)
	case List:
		v.list = splitList(s)
	default:
		v.s = s
	}
	if err != nil {
		return v, "Not a number of type " + t.String()
	}
	return v, ""
}

// splitList splits at commas, drops spaces around the parts and repeated parts.
func splitList(s string) []string {
	list := []string{}
	if s == "" {
		return list
	}
	for part := range strings.SplitSeq(s, ",") {
		if part = strings.TrimSpace(part); !slices.Contains(list, part) {
			list = append(list, part)
		}
	}
	return list
}

// atLeast checks a number's lower bound.
func atLeast(low int64) func(value) string {
	return func(v value) string {
		if v.i < low {
			return fmt.Sprintf("Value must be at least %d", low)
		}
		return ""
	}
}

// between checks both bounds of a fraction.
func between(low, high float64) func(value) string {
	return func(v value) string {
		switch {
		case !(v.f >= low): // so that NaN fails
			return fmt.Sprintf("Value must be at least %v", low)
		case !(v.f <= high):
			return fmt.Sprintf("Value must be no more than %v", high)
		}
		return ""
	}
}

// within checks both bounds of a whole number.
func within(low, high int64) func(value) string {
	return func(v value) string {
		switch {
		case v.i < low:
			return fmt.Sprintf("Value must be at least %d", low)
		case v.i > high:
			return fmt.Sprintf("Value must be no more than %d", high)
		}
		return ""
	}
}

// oneOf checks a text, or each part of a list, against the allowed ones.
func oneOf(allowed ...string) func(value) string {
	return func(v value) string {
		parts := v.list
		if v.typ != List {
			parts = []string{v.s}
		}
		for _, p := range parts {
			if !slices.Contains(allowed, p) {
				return "String must be one of: " + strings.Join(allowed, ", ")
			}
		}
		return ""
	}
}

// clip keeps hostile input out of error texts.
func clip(s string) string {
	const most = 256
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}
