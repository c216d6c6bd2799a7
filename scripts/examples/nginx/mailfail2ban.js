// Asks mailfail2ban whether the client of a new connection may come in. For js_access of nginx's stream module.

// Over TCP only: ngx.fetch knows no unix sockets. An address, not a name: nothing is to be resolved.
const QUESTION = 'http://127.0.0.1:8888/auth';

async function access(s) {
    let said;
    try {
        // js_fetch_timeout limits how long this takes.
        const answer = await ngx.fetch(QUESTION, {headers: {'X-Real-IP': s.remoteAddress}});
        said = answer.headers.get('X-Fail2ban-Status');
        if (said && answer.status === 403) {
            s.variables.mailfail2ban = said;
            s.deny();
            return;
        }
        if (!said) {
            s.error(`mailfail2ban: status ${answer.status} is no answer, ${s.remoteAddress} is let in`);
        }
    } catch (why) {
        s.error(`mailfail2ban: no answer, ${s.remoteAddress} is let in: ${why.message}`);
    }
    s.variables.mailfail2ban = said || 'failed';
    // Fail open. To fail closed: if (!said) { s.deny(); return; }
    s.allow();
}

export default {access};
