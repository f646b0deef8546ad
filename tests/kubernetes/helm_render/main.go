// Renders a Helm chart for the tests of the Kubernetes lane: the templates, the built-in objects and those of Helm's
// functions that docker/helm/slipway uses. It is no Helm: a function that is not here is an error, never ignored.
//
// Usage: helm-render CHART RELEASE NAMESPACE VALUES.json
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/ioutil"
	"os"
	"path/filepath"
	"reflect"
	"sort"
	"strings"
	"text/template"

	"sigs.k8s.io/yaml"
)

type values = map[string]interface{}

func main() {
	if len(os.Args) != 5 {
		fail(errors.New("usage: helm-render CHART RELEASE NAMESPACE VALUES.json"))
	}
	text, err := render(os.Args[1], os.Args[2], os.Args[3], os.Args[4])
	if err != nil {
		fail(err)
	}
	fmt.Print(text)
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "helm-render:", err)
	os.Exit(1)
}

func render(chart, release, namespace, overrides string) (string, error) {
	var given, over, about values
	for path, target := range map[string]*values{
		filepath.Join(chart, "values.yaml"): &given, overrides: &over, filepath.Join(chart, "Chart.yaml"): &about,
	} {
		data, err := ioutil.ReadFile(path)
		if err == nil {
			err = yaml.Unmarshal(data, target)
		}
		if err != nil {
			return "", fmt.Errorf("%s: %w", path, err)
		}
	}
	context := values{
		"Values":  merged(given, over),
		"Release": values{"Name": release, "Namespace": namespace, "Service": "Helm", "Revision": 1},
		"Chart":   values{"Name": about["name"], "Version": about["version"], "AppVersion": about["appVersion"]},
	}
	files, err := filepath.Glob(filepath.Join(chart, "templates", "*"))
	if err != nil {
		return "", err
	}
	sort.Strings(files)
	all := template.New("chart").Option("missingkey=zero")
	all.Funcs(functions(all))
	for _, file := range files {
		data, err := ioutil.ReadFile(file)
		if err != nil {
			return "", err
		}
		if _, err := all.New(filepath.Base(file)).Parse(string(data)); err != nil {
			return "", err
		}
	}
	var out bytes.Buffer
	for _, file := range files {
		name := filepath.Base(file)
		if strings.HasPrefix(name, "_") {
			continue
		}
		var part bytes.Buffer
		if err := all.ExecuteTemplate(&part, name, context); err != nil {
			return "", err
		}
		if strings.HasSuffix(name, ".yaml") && strings.TrimSpace(part.String()) != "" {
			fmt.Fprintf(&out, "---\n# Source: %s\n%s\n", name, part.String())
		}
	}
	return out.String(), nil
}

// merged lays over onto base, key by key.
func merged(base, over values) values {
	result := values{}
	for key, value := range base {
		result[key] = value
	}
	for key, value := range over {
		below, one := result[key].(values)
		above, two := value.(values)
		if one && two {
			result[key] = merged(below, above)
		} else {
			result[key] = value
		}
	}
	return result
}

func functions(all *template.Template) template.FuncMap {
	indent := func(spaces int, text string) string {
		pad := strings.Repeat(" ", spaces)
		return pad + strings.ReplaceAll(text, "\n", "\n"+pad)
	}
	return template.FuncMap{
		"include": func(name string, context interface{}) (string, error) {
			var out bytes.Buffer
			err := all.ExecuteTemplate(&out, name, context)
			return out.String(), err
		},
		"required": func(message string, value interface{}) (interface{}, error) {
			if isEmpty(value) {
				return nil, errors.New(message)
			}
			return value, nil
		},
		"default": func(fallback, value interface{}) interface{} {
			if isEmpty(value) {
				return fallback
			}
			return value
		},
		"toYaml": func(value interface{}) (string, error) {
			data, err := yaml.Marshal(value)
			return strings.TrimSuffix(string(data), "\n"), err
		},
		"toJson": func(value interface{}) (string, error) {
			data, err := json.Marshal(value)
			return string(data), err
		},
		"quote":      func(value interface{}) string { return fmt.Sprintf("%q", fmt.Sprint(value)) },
		"nindent":    func(spaces int, text string) string { return "\n" + indent(spaces, text) },
		"trunc":      func(length int, text string) string { return text[:min(length, len(text))] },
		"trimSuffix": func(suffix, text string) string { return strings.TrimSuffix(text, suffix) },
		"list":       func(items ...interface{}) []interface{} { return items },
		"dict": func(pairs ...interface{}) values {
			result := values{}
			for i := 0; i+1 < len(pairs); i += 2 {
				result[fmt.Sprint(pairs[i])] = pairs[i+1]
			}
			return result
		},
	}
}

func min(a, b int) int {
	if a < b {
		return a
	}
	return b
}

// isEmpty is what Helm holds for empty: the zero value, or a collection without elements.
func isEmpty(value interface{}) bool {
	if value == nil {
		return true
	}
	v := reflect.ValueOf(value)
	switch v.Kind() {
	case reflect.Map, reflect.Slice, reflect.String:
		return v.Len() == 0
	default:
		return v.IsZero()
	}
}
