{{/*
For the pods of another chart that has this one as a dependency, with `replicas: 0`: README.md shows how.
The program finds the tokens where `config` says, in /run/tokens; it mounts the volume `tokens` and nothing else.
*/}}

{{/* An entry of initContainers: rotator beside the program, for as long as that runs (Kubernetes 1.29). */}}
{{- define "rotator.sidecar" -}}
- name: rotator
  args: [run]
  restartPolicy: Always # a native sidecar: it starts before the program and is ended after it, so a Job completes
  ports:
    - {name: metrics, containerPort: 9774}
  startupProbe: # the program starts when its token is there; a day's patience, for a restart would cure nothing
    httpGet: {path: /readyz, port: metrics}
    periodSeconds: 2
    timeoutSeconds: 5
    failureThreshold: 43200
  livenessProbe:
    httpGet: {path: /livez, port: metrics}
    timeoutSeconds: 5
  {{- include "rotator.beside" . | nindent 2 }}
{{- end -}}

{{/* An entry of initContainers: refreshes if that is due, and ends, for programs shorter than their token. */}}
{{- define "rotator.once" -}}
- name: rotator
  args: [run, --once] # tried again until the token is there, in a Job `backoffLimit` times; then the program starts
  {{- include "rotator.beside" . | nindent 2 }}
{{- end -}}

{{- define "rotator.beside" -}}
{{ include "rotator.program" . }}
securityContext:
  runAsUser: 10001
  runAsGroup: 10001
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
volumeMounts:
  - {name: config, mountPath: /etc/rotator, readOnly: true}
  - {name: run, mountPath: /run/rotator}
  - {name: tokens, mountPath: /run/tokens}
  - {name: account, mountPath: /var/run/secrets/kubernetes.io/serviceaccount, readOnly: true}
{{- end -}}

{{/* The volumes that these containers mount. */}}
{{- define "rotator.sidecarVolumes" -}}
{{ include "rotator.volumes" . }}
- name: tokens
  emptyDir: {medium: Memory, sizeLimit: 1Mi}
- name: account
  projected:
    sources:
      - serviceAccountToken: {path: token, expirationSeconds: 3600}
      - configMap: {name: kube-root-ca.crt, items: [{key: ca.crt, path: ca.crt}]}
      - downwardAPI: {items: [{path: namespace, fieldRef: {fieldPath: metadata.namespace}}]}
{{- end -}}
