import PushLink
import Runtime
import System
import WebSocket
import Wire

/// One connection: HTTP at first, a session once it has upgraded. On the loop's thread only.
final class Client: StreamDelegate {
    unowned let chat: ChatLoop
    private(set) var stream: System.Stream?
    var number: SessionNumber = 0
    /// Gone once the connection has upgraded.
    var conversation: HTTPConversation?
    var session: Session?
    /// Seconds of the loop's clock: when something last came, or for a fresh one when it connected.
    var heardAtS: UInt32
    var isPinged = false
    /// When it connected, was last answered or became a session: what limits how long it may take to say something.
    var sinceS: UInt32
    /// Counted for its address until it is closed.
    let address: ConnectionCounts.Key

    init(_ chat: ChatLoop, address: ConnectionCounts.Key) {
        self.chat = chat
        self.address = address
        heardAtS = chat.nowS
        sinceS = chat.nowS
        conversation = HTTPConversation()
    }

    func begin(_ stream: System.Stream) { self.stream = stream }

    // MARK: StreamDelegate

    func stream(_ stream: System.Stream, received bytes: Span<UInt8>) {
        heardAtS = chat.nowS
        isPinged = false
        if session != nil {
            receiveFrames(bytes, 0)
        } else if let conversation, !conversation.rest.isEmpty {
            conversation.rest.append(bytes)
        } else {
            receiveRequests(bytes)
        }
    }

    func streamEnded(_ stream: System.Stream) {
        // A device that has shut its side cannot acknowledge or answer: the session is over. A request that is being
        // worked on still gets its answer.
        if session == nil, let conversation, conversation.isBusy || !conversation.rest.isEmpty {
            conversation.isEnded = true
        } else {
            stream.closeAfterFlush()
        }
    }

    func streamDrained(_ stream: System.Stream) {
        if let session { chat.drained(self, session) } else { takeUpRequests() }
    }

    func streamClosed(_ stream: System.Stream, reason: CloseReason) {
        chat.closed(self)
        self.stream = nil
        conversation = nil
    }

    // MARK: WebSocket

    private func receiveFrames(_ bytes: Span<UInt8>, _ start: Int) {
        guard let session, let stream else { return }
        var offset = start
        // Taken out while in use: what a frame causes may come back here through other sessions.
        var message = chat.takeScratch()
        defer { chat.giveBack(scratch: message) }
        let limits = chat.connectionLimits
        do throws(ProtocolViolation) {
            while let event = try session.connection.next(bytes, &offset, into: &message, limits: limits) {
                switch event {
                case .message(.text, isCompressed: false):
                    chat.metrics.framesIn.add()
                    chat.receive(message, from: self, session)
                case .message(.text, isCompressed: true):
                    chat.metrics.framesIn.add()
                    let text = try chat.deflate.text(message, bytesMax: limits.messageBytesMax)
                    chat.receive(text, from: self, session)
                case .message:
                    chat.refuse(self, .clientError, "text frames only")
                case .ping, .pong: break
                case .closed:
                    stream.write(session.connection.takeOutput())
                    chat.detach(self, session)
                    stream.closeAfterFlush()
                    return
                }
                if session.state == .closing { break }
            }
        } catch {
            chat.metrics.closes(error.closeCode)
            chat.detach(self, session)
            session.connection.close(error.closeCode, reason: error.description)
            stream.write(session.connection.takeOutput())
            return chat.end(self)
        }
        let output = session.connection.takeOutput()
        if !output.isEmpty, stream.write(output) == .overflow { chat.closeSlow(self) }
    }

    /// Queues a frame for the device.
    func send(_ frame: [UInt8]) {
        guard let stream, let session, session.state != .closing else { return }
        if stream.write(frame) == .overflow { chat.closeSlow(self) }
    }

    // MARK: HTTP

    private func receiveRequests(_ bytes: Span<UInt8>) {
        guard let stream, let conversation else { return }
        var offset = 0
        do {
            while !conversation.isBusy, hasRoomForAnswer, let request = try conversation.parser.next(bytes, &offset) {
                conversation.begin(request)
                chat.http.handle(request, of: self)
                if session != nil { return receiveFrames(bytes, offset) }
                guard stream.isOpen, !conversation.isClosing else { return }
            }
            if conversation.isBusy || !hasRoomForAnswer {
                conversation.rest.append(bytes.extracting(offset..<bytes.count))
                stream.pauseReading()
                if !conversation.isBusy { takeUpRequestsLater() }
            } else if conversation.parser.takeContinueDue() {
                stream.write(HTTPResponse.continue)
            }
        } catch {
            chat.metrics.badRequests.add()
            conversation.isClosing = true
            stream.write(HTTPAnswer.error(error.status, "bad_request", error.description).encode(keepsAlive: false))
            chat.end(self)
        }
    }

    /// Answers the request under way, then goes on with what came behind it.
    func respond(_ response: HTTPResponse) {
        guard let stream, let conversation, stream.isOpen else { return }
        let keepsAlive = conversation.keepsAlive && !conversation.isEnded && !chat.isDraining
        chat.metrics.responses(response.status)
        if stream.write(response.encode(keepsAlive: keepsAlive, isHead: conversation.isHead)) == .overflow {
            chat.log.error("an answer is longer than any should be", ["bytes": .init(response.body.count)])
            return stream.close()
        }
        conversation.isBusy = false
        conversation.hasServed = true
        sinceS = chat.nowS
        guard keepsAlive else {
            conversation.isClosing = true
            return stream.closeAfterFlush(timeoutMs: chat.configuration.limits.keepAliveMs)
        }
        if stream.isReadingPaused { takeUpRequestsLater() }
    }

    /// An answer may be long; who asks for the next one has to take this one first, or asking would fill our memory.
    private var hasRoomForAnswer: Bool { (stream?.queuedBytes ?? 0) <= chat.configuration.limits.fillBytes }

    /// Goes on with what came behind a request that has been answered.
    private func takeUpRequests() {
        guard let stream, let conversation, stream.isReadingPaused, !conversation.isBusy, !conversation.isClosing else {
            return
        }
        guard hasRoomForAnswer else { return takeUpRequestsLater() }
        stream.resumeReading()
        let rest = conversation.rest
        conversation.rest = []
        if !rest.isEmpty { receiveRequests(rest.span) }
    }

    private func takeUpRequestsLater() {
        // A socket that is full tells when it is not (`streamDrained`).
        guard stream?.isBlocked == false else { return }
        chat.loop.schedule(afterMs: hasRoomForAnswer ? 0 : 1) { [weak self] in self?.takeUpRequests() }
    }

    /// The answer that turns the connection into a session.
    func upgrade(_ answer: [UInt8], to session: Session) {
        self.session = session
        sinceS = chat.nowS
        conversation = nil
        stream?.write(answer)
        stream?.limits = StreamLimits(
            bytes: UInt32(chat.configuration.limits.sessionQueueBytes),
            fragments: UInt32(chat.configuration.limits.sessionQueueFragments))
    }
}

/// HTTP on one connection: a request at a time; what comes behind it waits in the socket.
final class HTTPConversation {
    var parser = HTTPParser()
    /// A request is being worked on elsewhere.
    var isBusy = false
    var isHead = false
    var keepsAlive = true
    /// The peer has sent everything it will.
    var isEnded = false
    var isClosing = false
    /// What came behind the request under way, before reading stopped.
    var rest: [UInt8] = []
    /// At least one request has been answered.
    var hasServed = false

    func begin(_ request: HTTPRequest) {
        isHead = request.method == "HEAD"
        keepsAlive = request.keepsAlive
    }
}
