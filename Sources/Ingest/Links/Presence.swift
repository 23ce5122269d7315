import PushLink
import System
import Wire

/// Who watches whom. Delivery, which owns a user's partition, knows whether the user has a session; it is asked once for a
/// user however many watch, and again by whoever owns the partition next.
final class Presence {
    private unowned let chat: ChatLoop
    private struct Watched {
        var sessions: Set<SessionNumber> = []
        var last: PresenceNotice?
        /// Calls that wait for the first notice, such as `GET /v1/users/{id}/status`.
        var callers: [(PresenceNotice) -> Void] = []

        var isWanted: Bool { !sessions.isEmpty || !callers.isEmpty }
    }
    private var watched: [UserID: Watched] = [:]

    init(_ chat: ChatLoop) { self.chat = chat }

    func watch(_ user: UserID, by client: Client, _ session: Session) {
        guard session.extras.watches.count < chat.configuration.limits.watchesMax else {
            return client.send(ServerFrame.error(.tooMany, "too many users are watched"))
        }
        guard !session.extras.watches.contains(user) else { return }
        if let waitMs = chat.takeWatch(session) {
            return client.send(ServerFrame.error(.rateLimited, "too many watches", retryAfterMs: waitMs))
        }
        session.extras.watches.insert(user)
        if let last = ask(user, { $0.sessions.insert(client.number) }) { client.send(ServerFrame.presence(last)) }
    }

    func unwatch(_ user: UserID, by number: SessionNumber, _ session: Session) {
        guard let extras = session.busy, extras.watches.remove(user) != nil else { return }
        watched[user]?.sessions.remove(number)
        forgetIfUnwanted(user)
    }

    func end(_ number: SessionNumber, _ session: Session) {
        for user in session.busy?.watches ?? [] {
            watched[user]?.sessions.remove(number)
            forgetIfUnwanted(user)
        }
        session.busy?.watches = []
    }

    /// Calls back once with what is known or soon will be.
    func look(_ user: UserID, _ body: @escaping (PresenceNotice) -> Void) {
        if let last = watched[user]?.last { return body(last) }
        _ = ask(user) { $0.callers.append(body) }
    }

    private func ask(_ user: UserID, _ change: (inout Watched) -> Void) -> PresenceNotice? {
        let isNew = watched[user] == nil
        change(&watched[user, default: Watched()])
        if isNew { chat.links.owner(of: user)?.send(.watch([user])) }
        return watched[user]?.last
    }

    private func forgetIfUnwanted(_ user: UserID) {
        guard let entry = watched[user], !entry.isWanted else { return }
        watched[user] = nil
        chat.links.owner(of: user)?.send(.unwatch([user]))
    }

    func receive(_ notices: [PresenceNotice]) {
        for notice in notices {
            guard var entry = watched[notice.user] else { continue }
            let isNews = entry.last.map { $0 != notice } ?? true
            let callers = entry.callers
            entry.last = notice
            entry.callers = []
            watched[notice.user] = entry
            if isNews, !entry.sessions.isEmpty {
                let frame = ServerFrame.presence(notice)
                for number in entry.sessions { tell(frame, of: notice.user, number) }
            }
            for caller in callers { caller(notice) }
            forgetIfUnwanted(notice.user)
        }
    }

    /// Presence goes before messages: a device that does not keep up hears of it when it does, as it is then.
    private func tell(_ frame: [UInt8], of user: UserID, _ number: SessionNumber) {
        guard let (client, session) = chat.session(number) else { return }
        if client.stream?.isBlocked == true {
            session.extras.unheardPresence.insert(user)
        } else {
            client.send(frame)
        }
    }

    func tellUnheard(_ client: Client, _ session: Session) {
        guard let users = session.busy?.unheardPresence, !users.isEmpty else { return }
        session.extras.unheardPresence = []
        for user in users where session.extras.watches.contains(user) {
            if let last = watched[user]?.last { client.send(ServerFrame.presence(last)) }
        }
    }

    /// A new owner has to be told who is watched in its partitions.
    func claimed(_ partitions: Set<Int32>, by peer: LinkPeer) {
        let users = watched.keys.filter { partitions.contains(chat.links.partition(of: $0)) }
        for start in stride(from: 0, to: users.count, by: LinkLimits.sessionsPerFrame) {
            peer.send(.watch(Array(users[start..<min(start + LinkLimits.sessionsPerFrame, users.count)])))
        }
    }
}
