{{/*
The configuration, as JSON: that of the values, and names by which two releases in one namespace stay apart.
*/}}
{{- define "rotator.config" -}}
{{- $name := include "rotator.name" . -}}
{{- $names := dict "lease" $name "secret_prefix" (printf "%s-state-" $name) -}}
{{- mustMergeOverwrite (dict "kubernetes" $names) (deepCopy .Values.config) | toJson -}}
{{- end -}}

{{/* Values have no whole numbers, TOML does: `32.0` is written as `32`. No text can look like that: it has quotes. */}}
{{- define "rotator.toml" -}}
{{- regexReplaceAll "(?m)( = -?[0-9]+)\\.0$" (include "rotator.config" . | fromJson | toToml) "${1}" -}}
{{- end -}}

{{/* The Secrets that rotator publishes, as JSON: a list of namespace, name, type and credential. */}}
{{- define "rotator.outputs" -}}
{{- $config := include "rotator.config" . | fromJson -}}
{{- $defaults := $config.defaults | default dict -}}
{{- $found := list -}}
{{- range $credential, $table := $config.credentials -}}
{{- range (hasKey $table "outputs" | ternary $table.outputs $defaults.outputs) -}}
{{- with .kubernetes_secret -}}
{{- $namespace := .namespace | default $.Release.Namespace -}}
{{- $name := .name | replace "{name}" $credential -}}
{{- $found = append $found (dict "namespace" $namespace "name" $name "type" .type "credential" $credential) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $found | toJson -}}
{{- end -}}

{{/*
The rules of a Role for each namespace, as JSON. Up to eight objects of a kind are watched by their names, more by a
label, for which the API server wants a right without names: give such a fleet a namespace of its own.
*/}}
{{- define "rotator.rights" -}}
{{- $config := include "rotator.config" . | fromJson -}}
{{- $store := $config.kubernetes.namespace | default .Release.Namespace -}}
{{- $states := list -}}
{{- range $credential, $_ := $config.credentials -}}
{{- $states = append $states (print $config.kubernetes.secret_prefix $credential) -}}
{{- end -}}
{{- $leases := list $config.kubernetes.lease -}}
{{- with $config.kubernetes.shards -}}
{{- if gt (int .) 1 -}}
{{- $leases = list -}}
{{- range until (int .) -}}
{{- $leases = append $leases (printf "%s-%d" $config.kubernetes.lease .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $pair := dict "apiGroups" (list "") "resources" (list "secrets") "verbs" (list "get" "list" "watch" "patch" "create") -}}
{{- if le (len $states) 8 -}}
{{- $_ := set $pair "resourceNames" $states -}}
{{- end -}}
{{- $lease := dict "apiGroups" (list "coordination.k8s.io") "resources" (list "leases") "resourceNames" $leases "verbs" (list "get" "patch" "create") -}}
{{- $rights := dict $store (list $pair $lease) -}}
{{- $published := dict -}}
{{- range (include "rotator.outputs" . | fromJsonArray) -}}
{{- $_ := set $published .namespace (append (get $published .namespace | default list) .name) -}}
{{- end -}}
{{- range $namespace, $all := $published -}}
{{- $names := uniq $all -}}
{{- $verbs := $.Values.precreateOutputs | ternary (list "get" "patch") (list "get" "patch" "create") -}}
{{- $rules := get $rights $namespace | default list -}}
{{- if le (len $names) 8 -}}
{{- $verbs = append $verbs "watch" -}}
{{- else -}}
{{- $rules = append $rules (dict "apiGroups" (list "") "resources" (list "secrets") "verbs" (list "watch")) -}}
{{- end -}}
{{- $rules = append $rules (dict "apiGroups" (list "") "resources" (list "secrets") "resourceNames" $names "verbs" $verbs) -}}
{{- $_ := set $rights $namespace $rules -}}
{{- end -}}
{{- $rights | toJson -}}
{{- end -}}
