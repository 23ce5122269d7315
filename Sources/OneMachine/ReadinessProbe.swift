import HTTPClient

/// Whether the chat server can carry messages. Whoever has its port may answer `/readyz`, another chat server even; only
/// ours takes a token that our key signed. On the client's loop only.
final class ReadinessProbe {
    private let address: String
    private let token: String
    private let client: HTTPClient
    private var isAsking = false
    private(set) var isReady = false

    init(chatPort: UInt16, token: String, client: HTTPClient) {
        address = "http://127.0.0.1:\(chatPort)"
        self.token = token
        self.client = client
    }

    /// Asks once, unless the last question is still open.
    func ask() {
        guard !isAsking, !isReady else { return }
        isAsking = true
        get("/readyz") { [weak self] isReady in
            guard isReady, let self else {
                self?.isAsking = false
                return
            }
            get("/v1/endpoint") { [weak self] isOurs in
                self?.isReady = isOurs
                self?.isAsking = false
            }
        }
    }

    private func get(_ path: String, _ body: @escaping (Bool) -> Void) {
        let headers = [(name: "Authorization", value: "Bearer \(token)")]
        client.send(HTTPRequest("GET", address + path, headers: headers)) { result in
            if case .success(let response) = result { body(response.status == 200) } else { body(false) }
        }
    }
}
